//! What came of every cell: client, protocol, transport, case.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::cases::{Client, Plan};

/// Facts that a case's own run decides, so that clients need not agree on them.
const OWN: [&str; 4] = ["protocol", "transport", "case", "request_id"];

pub(crate) struct Matrix<'plan> {
    plan: &'plan Plan,
    /// Columns: client, protocol, transport.
    columns: Vec<String>,
    /// By column and case: what was seen, and what is wrong with it.
    cells: BTreeMap<(String, String), (Value, Option<String>)>,
}

impl<'plan> Matrix<'plan> {
    pub(crate) fn new(plan: &'plan Plan) -> Self {
        Self { plan, columns: Vec::new(), cells: BTreeMap::new() }
    }

    /// Judges what a client saw.
    pub(crate) fn add(&mut self, client: &Client, seen: Vec<Value>) {
        let find = |protocol: &str, transport: &str, case: &str| {
            let is_it =
                |seen: &&Value| seen["protocol"] == protocol && seen["transport"] == transport && seen["case"] == case;
            seen.iter().find(is_it).cloned()
        };
        for protocol in &client.protocols {
            for transport in &client.transports {
                let column = format!("{} {protocol} {transport}", client.name);
                for case in self.plan.cases.iter().filter(|case| case.is_for(transport)) {
                    let cell = match find(protocol, transport, &case.name) {
                        Some(seen) => {
                            let fault = case.fault(&seen, |other| find(protocol, transport, other));
                            (seen, fault)
                        }
                        None => (Value::Null, Some("it was not tried".to_owned())),
                    };
                    self.cells.insert((column.clone(), case.name.clone()), cell);
                }
                self.columns.push(column);
            }
        }
        self.compare();
    }

    /// All clients must have seen the same: the first one that saw what it must is the measure.
    fn compare(&mut self) {
        for case in &self.plan.cases {
            let mut measure: Option<(String, Value)> = None;
            for column in &self.columns {
                let Some((seen, fault)) = self.cells.get_mut(&(column.clone(), case.name.clone())) else { continue };
                if fault.is_some() {
                    continue;
                }
                let facts = facts(seen);
                match &measure {
                    None => measure = Some((column.clone(), facts)),
                    Some((first, same)) if *same != facts => *fault = Some(format!("{first} saw {same}")),
                    Some(_) => {}
                }
            }
        }
    }

    /// A row for each case, a column for each client's protocol and transport.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        for (number, column) in self.columns.iter().enumerate() {
            let _ = writeln!(table, "{:>2}  {column}", number + 1);
        }
        let widest = self.plan.cases.iter().map(|case| case.name.len()).max().unwrap_or_default();
        let numbers: String = (1..=self.columns.len()).map(|number| format!("{number:>5}")).collect();
        let _ = writeln!(table, "\n{:widest$}{numbers}", "");
        let mut green = 0;
        for case in &self.plan.cases {
            let _ = write!(table, "{:widest$}", case.name);
            for column in &self.columns {
                let mark = match self.cells.get(&(column.clone(), case.name.clone())) {
                    None => ".",
                    Some((_, None)) => "ok",
                    Some((_, Some(_))) => "FAIL",
                };
                green += usize::from(mark == "ok");
                let _ = write!(table, "{mark:>5}");
            }
            table.push('\n');
        }
        let _ = writeln!(table, "{green} of {} cells are as they must be", self.cells.len());
        table
    }

    /// Failures that are not known, and known ones that are none any more.
    pub(crate) fn complaints(&self, known: &str, all_ran: bool) -> Vec<String> {
        let known: Vec<&str> =
            known.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut complaints = Vec::new();
        let mut failed = Vec::new();
        for ((column, case), (seen, fault)) in &self.cells {
            let Some(fault) = fault else { continue };
            let name = format!("{column} {case}");
            if !known.contains(&name.as_str()) {
                complaints.push(format!("{name}: {fault}; seen was {seen}"));
            }
            failed.push(name);
        }
        for name in known.into_iter().filter(|name| all_ran && !failed.iter().any(|failed| failed == name)) {
            complaints.push(format!("{name} is as it must be: take it off the list of known failures"));
        }
        complaints
    }
}

fn facts(seen: &Value) -> Value {
    let mut facts = seen.clone();
    if let Some(facts) = facts.as_object_mut() {
        facts.retain(|key, value| !OWN.contains(&key.as_str()) && !value.is_null());
        // A fault is said by the server in one way; the others in the client's words, or with the service's name.
        if facts["outcome"] != "fault" {
            facts.remove("message");
        }
    }
    facts
}
