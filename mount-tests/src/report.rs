//! What is printed: a line a case, the reasons at the end, and the sum as the last line.

use std::time::Duration;

/// How a case ended.
#[derive(Debug)]
pub enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Collects verdicts and prints them as they come.
#[derive(Default)]
pub struct Report {
    passed: usize,
    skipped: usize,
    failures: Vec<(String, String)>,
}

impl Report {
    /// Takes and prints one verdict.
    pub fn add(&mut self, place: &str, name: &str, took: Duration, verdict: Verdict) {
        let label = format!("{place:<14} {name}");
        let ms = took.as_millis();
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok       {label} ({ms} ms)");
            }
            Verdict::Skipped(reason) => {
                self.skipped += 1;
                println!("skipped  {label}: {reason}");
            }
            Verdict::Failed(why) => {
                println!("FAILED   {label} ({ms} ms): {}", indent(&why));
                self.failures.push((label, why));
            }
        }
    }

    /// Prints the failures again and the sum; whether all is well.
    pub fn finish(&self) -> bool {
        if !self.failures.is_empty() {
            println!("\nfailures:");
            for (label, why) in &self.failures {
                println!("  {label}: {}", indent(why));
            }
        }
        println!(
            "\n{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skipped
        );
        self.failures.is_empty()
    }
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n         ")
}
