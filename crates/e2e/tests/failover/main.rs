//! Two servers behind two gateways behind nginx under constant load: what each fault costs those who ask.
//!
//! `cargo test --profile fast -p e2e --test failover -- --nocapture` prints the table.

mod fleet;
mod load;
mod network;
mod relay;

use std::fmt::Write as _;
use std::time::Duration;

use e2e::wait_until;
use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::load::{CALLERS, Load, Seen};
use crate::relay::Mode;

/// A busy machine takes several times what an idle one does.
const LONG: Duration = Duration::from_secs(90);

/// Answers before a fault, so that everything is warm, and with it.
const MANY: usize = 400;

/// What a case may cost at most, and what it cost.
struct Row {
    name: &'static str,
    seen: Seen,
    may: Cost,
}

/// Failed requests that are right.
#[derive(Clone, Copy)]
enum Cost {
    Nothing,
    /// Requests that were in flight on a gateway that died: nginx cannot know whether they were done.
    InFlightOnAGateway,
    /// Calls that were on their way to a server which answers nobody any more, and those that went there before it was noticed.
    BeforeItIsNoticed,
}

impl Row {
    fn verdict(&self) -> Result<(), String> {
        let (most, status, code) = match self.may {
            Cost::Nothing => (0, 0, ""),
            Cost::InFlightOnAGateway => (CALLERS, 502, "upstream_unavailable"),
            // Of each caller the one in flight, and five in a row at each of the gateways' threads.
            Cost::BeforeItIsNoticed => (CALLERS + 5 * 2 * fleet::WORKERS, 504, "deadline_exceeded"),
        };
        let failed = &self.seen.failed;
        if failed.len() > most {
            return Err(format!(
                "{}: {} failed, at most {most} may: {:?}",
                self.name,
                failed.len(),
                &failed[..most.min(4) + 1]
            ));
        }
        match failed.iter().find(|failure| (failure.status, failure.code.as_str()) != (status, code)) {
            Some(other) => Err(format!("{}: {other:?}, only {status} {code} may be", self.name)),
            None => Ok(()),
        }
    }
}

#[test]
fn each_fault_costs_no_more_than_it_must() {
    let mut fleet = Fleet::start();
    let load = Load::start(&fleet.address());
    let mut rows = Vec::new();

    load.more(MANY);
    let _warm = load.take();
    load.more(MANY);
    rows.push(Row { name: "no fault", seen: load.take(), may: Cost::Nothing });

    load.more(MANY);
    fleet.servers[1].kill();
    load.more(MANY);
    fleet.launch_server(1);
    fleet.wait_server(1);
    load.more(MANY);
    rows.push(Row { name: "a server killed and started again", seen: load.take(), may: Cost::Nothing });

    for index in 0..2 {
        fleet.servers[index].signal(Signal::TERM);
        assert_eq!(fleet.servers[index].wait(LONG).code(), Some(0), "{}", fleet.servers[index].log());
        fleet.launch_server(index);
        fleet.wait_server(index);
        load.more(MANY);
    }
    for index in 0..2 {
        fleet.gateways[index].signal(Signal::TERM);
        assert_eq!(fleet.gateways[index].wait(LONG).code(), Some(0), "{}", fleet.gateways[index].log());
        fleet.launch_gateway(index);
        fleet.wait_gateway(index);
        load.more(MANY);
    }
    rows.push(Row { name: "SIGTERM to each server and gateway in turn", seen: load.take(), may: Cost::Nothing });

    fleet.gateways[1].kill();
    load.more(MANY);
    fleet.launch_gateway(1);
    fleet.wait_gateway(1);
    load.more(MANY);
    rows.push(Row { name: "a gateway killed and started again", seen: load.take(), may: Cost::InFlightOnAGateway });

    fleet.renew_gateways(&load);
    fleet.relay.set(Mode::Reset);
    load.more(MANY);
    fleet.relay.set(Mode::Pass);
    load.more(MANY);
    rows.push(Row { name: "a server that resets its connections", seen: load.take(), may: Cost::Nothing });

    fleet.renew_gateways(&load);
    fleet.relay.set(Mode::Slow);
    load.more(MANY);
    fleet.relay.set(Mode::Pass);
    load.more(MANY);
    rows.push(Row { name: "a server 20 times slower", seen: load.take(), may: Cost::Nothing });

    fleet.renew_gateways(&load);
    fleet.servers[1].signal(Signal::STOP);
    load.more(MANY);
    // Also those that had gone there.
    load.each();
    fleet.servers[1].signal(Signal::CONT);
    load.more(MANY);
    rows.push(Row {
        name: "a server that hangs (SIGSTOP) and goes on",
        seen: load.take(),
        may: Cost::BeforeItIsNoticed,
    });

    fleet.renew_gateways(&load);
    match &fleet.namespace {
        Some(namespace) => {
            namespace.cut();
            load.more(MANY);
            load.each();
            namespace.mend();
            load.more(MANY);
            rows.push(Row {
                name: "a link that drops every packet, mended",
                seen: load.take(),
                may: Cost::BeforeItIsNoticed,
            });
        }
        None => network::skip(),
    }
    fleet.wait_server(1);
    wait_until("readiness after it all", LONG, || fleet.ready().then_some(()));
    load.end();

    println!("{}", table(&rows));
    let wrong: Vec<String> = rows.iter().filter_map(|row| row.verdict().err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| what happens | requests | failed | median | 99 % within | slowest |\n|---|---|---|---|---|---|\n".to_owned();
    for Row { name, seen, .. } in rows {
        let of = |share| seen.quantile(share).as_secs_f64() * 1e3;
        let (count, failed) = (seen.answered(), seen.failed.len());
        writeln!(text, "| {name} | {count} | {failed} | {:.1} ms | {:.1} ms | {:.0} ms |", of(0.5), of(0.99), of(1.0))
            .expect("a string takes it");
    }
    text
}
