//! Two servers behind two gateways behind nginx under constant load: what each fault costs those who ask.
//!
//! `cargo test --profile fast -p e2e --test failover -- --nocapture` prints the table, `scripts/bench failover` writes it into
//! docs/benchmarks.md, with as many requests in the long stage as `OUTBOARD_FAILOVER_REQUESTS` says.

mod fleet;
mod load;
mod network;
mod relay;

use std::fmt::Write as _;
use std::time::Duration;

use e2e::wait_until;
use rustix::process::Signal;

use crate::fleet::{Fleet, Part};
use crate::load::{CALLERS, Failure, Load, Seen};
use crate::relay::Mode;

/// A busy machine takes several times what an idle one does.
const LONG: Duration = Duration::from_secs(90);

/// Answers before a fault, so that everything is warm, and with it.
const MANY: usize = 400;

/// Requests of the long stage, in which everything is started again one after the other, unless told otherwise.
const LONG_STAGE: usize = 3_000;

const NO_FAULT: &str = "no fault";

/// Everything that is started again in turn.
const ROUND: [Part; 4] = [Part::Server(0), Part::Server(1), Part::Gateway(0), Part::Gateway(1)];

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
    /// Requests that were in flight on a gateway that died: nginx cannot know whether they were done. Of each caller that is one,
    /// and one more that nginx put on a kept connection whose end had not come yet: a process does not close all at once.
    InFlightOnAGateway,
}

impl Row {
    fn verdict(&self) -> Result<(), String> {
        let (most, status, code) = match self.may {
            Cost::Nothing => (0, 0, ""),
            Cost::InFlightOnAGateway => (2 * CALLERS, 502, "upstream_unavailable"),
        };
        let failed = &self.seen.failed;
        if failed.len() > most {
            let told: Vec<String> = failed.iter().take(most + 4).map(Failure::to_string).collect();
            let told = told.join("; ");
            return Err(format!("{}: {} failed, at most {most} may: {told}", self.name, failed.len()));
        }
        match failed.iter().find(|failure| (failure.status, failure.code.as_str()) != (status, code)) {
            Some(other) => Err(format!("{}: {other}, only {status} {code} may be", self.name)),
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
    rows.push(Row { name: NO_FAULT, seen: load.take(), may: Cost::Nothing });

    load.more(MANY);
    fleet.servers[1].kill();
    load.more(MANY);
    fleet.launch_server(1);
    fleet.wait_server(1);
    load.more(MANY);
    rows.push(Row { name: "a server killed and started again", seen: load.take(), may: Cost::Nothing });

    for next in ROUND {
        fleet.restart(next);
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
    rows.push(Row { name: "a server that hangs (SIGSTOP) and goes on", seen: load.take(), may: Cost::Nothing });

    fleet.renew_gateways(&load);
    match &fleet.namespace {
        Some(namespace) => {
            namespace.cut();
            load.more(MANY);
            load.each();
            namespace.mend();
            load.more(MANY);
            rows.push(Row { name: "a link that drops every packet, mended", seen: load.take(), may: Cost::Nothing });
        }
        None => network::skip(),
    }
    fleet.wait_server(1);

    fleet.renew_gateways(&load);
    load.pace(Some(rows[0].seen.rate() / 2.0));
    load.more(MANY);
    let (_before, began) = (load.take(), load.ended());
    for next in ROUND.into_iter().cycle() {
        fleet.restart(next);
        // A whole round in any case.
        if next == ROUND[ROUND.len() - 1] && load.ended() - began >= long_stage() {
            break;
        }
    }
    rows.push(Row {
        name: "half the load, everything started again in turn, again and again",
        seen: load.take(),
        may: Cost::Nothing,
    });
    load.pace(None);
    wait_until("readiness after it all", LONG, || fleet.ready().then_some(()));
    load.end();

    println!("{}", table(&rows));
    let wrong: Vec<String> = rows.iter().filter_map(|row| row.verdict().err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn long_stage() -> usize {
    let told = std::env::var("OUTBOARD_FAILOVER_REQUESTS").ok();
    told.map_or(LONG_STAGE, |told| told.parse().expect("OUTBOARD_FAILOVER_REQUESTS is a number"))
}

/// The first row as it is, of the others what came on top.
fn table(rows: &[Row]) -> String {
    let mut text =
        "| what happens | requests | failed | median | 99 % within | slowest |\n|---|---|---|---|---|---|\n".to_owned();
    let shares = [0.5, 0.99, 1.0];
    let usual = shares.map(|share| rows[0].seen.quantile(share).as_secs_f64());
    for Row { name, seen, .. } in rows {
        let cell = |(share, usual): (f64, f64)| {
            let took = seen.quantile(share).as_secs_f64();
            if *name == NO_FAULT { format!("{:.1} ms", took * 1e3) } else { format!("{:+.1} ms", (took - usual) * 1e3) }
        };
        let [median, most, slowest] = [0, 1, 2].map(|index| cell((shares[index], usual[index])));
        let (count, failed) = (seen.answered(), seen.failed.len());
        writeln!(text, "| {name} | {count} | {failed} | {median} | {most} | {slowest} |").expect("a string takes it");
    }
    text
}
