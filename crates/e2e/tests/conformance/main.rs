//! Clients of other languages against the real server: every case of `conformance/cases.json` in each protocol over each
//! transport, as a table.
//!
//! The clients are built by `scripts/conformance`, which also runs this; so an ordinary run of the tests leaves it out.

mod cases;
mod clients;
mod matrix;
mod models;

use std::path::Path;

use e2e::{Parts, Stand, repository};

use crate::cases::Plan;
use crate::matrix::Matrix;

#[test]
#[ignore = "scripts/conformance builds the clients and runs it"]
fn every_client_sees_in_every_case_what_it_must() {
    let plan = Plan::read(&repository().join("crates/e2e/conformance/cases.json"));
    let chosen = std::env::var("CLIENTS").unwrap_or_default();
    let models = models::folder();
    let stand = serve(models.path());
    let mut matrix = Matrix::new(&plan);
    for client in &plan.clients {
        if chosen.is_empty() || chosen.split(',').any(|name| name == client.name) {
            matrix.add(client, clients::run(&client.name, &stand.thrift()));
        }
    }
    println!("{}", matrix.table());
    let known = std::fs::read_to_string(repository().join("crates/e2e/conformance/known-failures"));
    let complaints = matrix.complaints(&known.expect("it is in the tree"), chosen.is_empty());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The programs of `docs/clients`, as they stand there.
#[test]
#[ignore = "scripts/conformance builds the examples and runs it"]
fn every_example_streams_a_chat_and_tells_a_fault() {
    let chosen = std::env::var("CLIENTS").unwrap_or_default();
    let models = models::folder();
    let stand = serve(models.path());
    for client in clients::EXAMPLES {
        if !chosen.is_empty() && !chosen.split(',').any(|name| name == client) {
            continue;
        }
        let (status, said, told) = clients::example(client, &stand.thrift(), "tiny-llama");
        assert!(status.success() && told.contains(" tokens"), "{client}: {status}: {told}");
        // A random model says nothing that makes sense, but it says it.
        assert!(said.len() > 20, "{client}: {said}");
        let (status, _, told) = clients::example(client, &stand.thrift(), "nobody");
        let asked = client.trim_start_matches("python-").replace("thrift", "python");
        assert_eq!(status.code(), Some(1), "{client}: {told}");
        assert!(told.contains("`nobody`") && told.contains(&format!("(request {asked}-")), "{client}: {told}");
        // Nobody is there: a sentence, and no trace of the program's insides.
        let (status, _, told) = clients::example(client, "127.0.0.1:1", "tiny-llama");
        assert_eq!(status.code(), Some(1), "{client}: {told}");
        assert!(!told.is_empty() && told.lines().count() <= 3, "{client}: {told}");
        println!("the example for {client} does what it should");
    }
}

fn serve(models: &Path) -> Stand {
    Stand::start(Parts { models: vec![models.to_owned()], only: Vec::new(), web: false, ..Parts::default() })
}
