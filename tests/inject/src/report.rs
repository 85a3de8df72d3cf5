//! What was found: each finding at once, and a table of calls in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::allowed;
use crate::case::{Kind, Phase, Report};
use crate::strace::Fault;

/// The outcomes of the cases of a call.
#[derive(Default)]
struct Row {
    cases: usize,
    /// Cases in which the call was made, and failed.
    reached: usize,
    found: BTreeMap<Kind, usize>,
}

/// Shows what is wrong with a case and not excused; with `excused` also what is.
pub fn show(phase: Phase, fault: &Fault, report: &Report, excused: bool) {
    for finding in &report.findings {
        let reason = allowed::reason(phase, fault, finding);
        if excused || reason.is_none() {
            let excuse = reason.map(|reason| format!("  (excused: {reason})")).unwrap_or_default();
            let (kind, what, call) = (finding.kind, &finding.what, fault.expression());
            println!("{kind:<11} {phase:?} -e {call}  {what}{excuse}");
        }
    }
}

/// Shows the table. Whether nothing was found that is not excused.
pub fn summary(
    cases: &[(Phase, Fault)],
    reports: &BTreeMap<usize, Report>,
    took: Duration,
) -> bool {
    let mut rows: BTreeMap<(Phase, &str), Row> = BTreeMap::new();
    let mut excuses: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = 0;
    for (index, (phase, fault)) in cases.iter().enumerate() {
        let Some(report) = reports.get(&index) else { continue };
        let row = rows.entry((*phase, &fault.call)).or_default();
        row.cases += 1;
        row.reached += usize::from(report.injected > 0);
        let mut clean = true;
        for finding in &report.findings {
            if let Some(reason) = allowed::reason(*phase, fault, finding) {
                *excuses.entry(reason).or_default() += 1;
            } else {
                clean = false;
                *row.found.entry(finding.kind).or_default() += 1;
            }
        }
        wrong += usize::from(!clean);
    }
    println!("\n{:<20} {:<6} {:>6} {:>8}  found", "call", "phase", "cases", "reached");
    for ((phase, call), Row { cases, reached, found }) in &rows {
        let found: Vec<String> =
            found.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let phase = format!("{phase:?}");
        println!("{call:<20} {phase:<6} {cases:>6} {reached:>8}  {}", found.join(", "));
    }
    for (reason, count) in &excuses {
        println!("excused {count:>4}: {reason}");
    }
    println!(
        "\n{} cases in {} s, {wrong} of them with findings that are not excused",
        reports.len(),
        took.as_secs(),
    );
    wrong == 0
}
