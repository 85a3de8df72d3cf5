//! METP: sessions, commands, events, and what they cost.

#![cfg(test)]

mod accounts;
mod audit;
mod commands;
mod config;
mod connections;
mod effect_at_200;
mod info;
#[path = "../inprocess/mod.rs"]
mod inprocess;
mod limits;
mod logs;
mod metrics;
mod regressions;
mod roles;
mod session;
mod shutdown;
mod slow_logins;
mod subscribe;
mod trust;
mod unread_answers;
mod user_metrics;
