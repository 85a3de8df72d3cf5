//! What is shipped beside the programs: documents, completions, installation.

#![cfg(test)]

mod completions;
mod container;
mod documents;
mod globals;
mod install;
mod layers;
mod lints;
mod monitoring;
mod package;
mod service;
