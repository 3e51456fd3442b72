//! The rules that every IDL file keeps; `idl/README.md` gives the reasons.

mod idl_files;

use std::collections::BTreeSet;
use std::process::Command;

use idl_files::{Idl, folder};

/// Words that Rust 2024 or the compiler's targets keep to themselves, beyond those that the compiler refuses itself.
const KEYWORDS: [&str; 53] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield", "next", "class",
];

fn violations(idl: &Idl) -> Vec<String> {
    let mut found = Vec::new();
    let mut requests = BTreeSet::new();
    for (service, methods) in &idl.services {
        for (name, method) in methods {
            let place = format!("{service}.{name}");
            check_name(&place, name, &mut found);
            match method.arguments.iter().collect::<Vec<_>>()[..] {
                [(1, argument)] if idl.structs.contains_key(&argument.kind) => {
                    requests.insert(argument.kind.clone());
                }
                _ => found.push(format!("{place}: not exactly one request struct with id 1")),
            }
            let throws: Vec<_> = method.throws.iter().map(|(id, field)| (*id, field.kind.as_str())).collect();
            if method.oneway {
                if method.reply != "void" || !throws.is_empty() {
                    found.push(format!("{place}: a oneway method has no reply and no exception"));
                }
                continue;
            }
            if idl.structs.get(&method.reply).is_none_or(|(word, _)| word != "struct") {
                found.push(format!("{place}: the reply {} is no struct", method.reply));
            }
            if throws != [(1, "fault.Fault")] {
                found.push(format!("{place}: does not throw exactly 1: fault.Fault"));
            }
        }
    }
    for (name, (word, fields)) in &idl.structs {
        for (id, field) in fields {
            let place = format!("{name}.{}", field.name);
            check_name(&place, &field.name, &mut found);
            if field.requiredness == "required" {
                found.push(format!("{place}: required can never be taken back"));
            }
            if field.has_default {
                found.push(format!("{place}: a default is told in the comment, not declared"));
            }
            if *id < 1 {
                found.push(format!("{place}: ids begin with 1"));
            }
            let named = field.kind.split(['<', '>', ',']).filter(|part| part.contains('.'));
            for part in named.filter(|part| !idl.structs.contains_key(*part) && !idl.enums.contains_key(*part)) {
                found.push(format!("{place}: no type {part}"));
            }
        }
        if requests.contains(name) {
            let base = fields.get(&1).map(|field| (field.requiredness.as_str(), field.kind.as_str(), &*field.name));
            if word != "struct" || base != Some(("optional", "base.Base", "base")) {
                found.push(format!("{name}: a request begins with 1: optional base.Base base"));
            }
        }
    }
    found
}

fn check_name(place: &str, name: &str, found: &mut Vec<String>) {
    if KEYWORDS.contains(&name) {
        found.push(format!("{place}: {name} is a keyword"));
    }
    if !name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_') {
        found.push(format!("{place}: names are snake_case"));
    }
}

#[test]
fn the_idl_keeps_its_rules() {
    let found = violations(&Idl::read(&folder()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let broken = [
        ("struct A { 1: required i32 a }", "required"),
        ("struct A { 1: i32 a = 5 }", "default"),
        ("struct A { 1: i32 gen }", "keyword"),
        ("struct A { 1: i32 notSnake }", "snake_case"),
        ("struct A { 1: list<Missing> a }", "no type x.Missing"),
        ("struct A { 1: i32 a } service S { A go(1: i32 a) throws (1: fault.Fault fault) }", "request struct"),
        ("struct A { 2: i32 a } service S { A go(1: A a) throws (1: fault.Fault fault) }", "optional base.Base"),
        ("struct A { 1: i32 a } service S { i32 go(1: A a) throws (1: fault.Fault fault) }", "is no struct"),
        ("struct A { 1: i32 a } service S { A go(1: A a) }", "exactly 1: fault.Fault"),
        ("struct A { 1: i32 a } service S { oneway void go(1: A a) throws (1: fault.Fault f) }", "oneway"),
    ];
    for (text, words) in broken {
        let found = violations(&Idl::parse("x", text));
        assert!(found.iter().any(|violation| violation.contains(words)), "{text}: {found:?}");
    }
}

/// Every service and method of the IDL has a constant and an arm of its dispatch, and the other way round.
#[test]
fn the_services_in_rust_are_those_of_the_idl() {
    use idl::methods::*;
    let here: BTreeSet<(&str, bool)> = [
        (MODELS.name, MODELS.oneway),
        (INFER.name, INFER.oneway),
        (CLASSIFY.name, CLASSIFY.oneway),
        (EMBED.name, EMBED.oneway),
        (CANCEL.name, CANCEL.oneway),
        (COMPLETE.name, COMPLETE.oneway),
        (START.name, START.oneway),
        (NEXT_PIECES.name, NEXT_PIECES.oneway),
        (STOP.name, STOP.oneway),
        (CHECK.name, CHECK.oneway),
        (LOAD.name, LOAD.oneway),
        (UNLOAD.name, UNLOAD.oneway),
        (RELOAD.name, RELOAD.oneway),
        (STATISTICS.name, STATISTICS.oneway),
    ]
    .into();
    let idl = Idl::read(&folder());
    let there: BTreeSet<(&str, bool)> =
        idl.services.values().flatten().map(|(name, method)| (name.as_str(), method.oneway)).collect();
    assert_eq!(here, there);
    let methods: usize = idl.services.values().map(|methods| methods.len()).sum();
    assert_eq!(methods, there.len(), "a method's name is there in two services; plain clients do not name the service");
}

#[test]
fn the_generated_files_are_those_of_the_idl() {
    const NAME: &str = "idl-generated";
    let root = folder().join("..");
    let version = Command::new("thrift").arg("--version").output();
    let found = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !found.contains("0.17.0") {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the thrift compiler 0.17.0 is missing");
        skip(NAME, "the thrift compiler 0.17.0 is missing");
        return;
    }
    let check = Command::new(root.join("scripts/idl")).arg("--check").output().expect("a script of the repository");
    let told = [check.stdout, check.stderr].concat();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&told));
}

/// Tells the test run, where there is one, that a test was skipped and why.
fn skip(name: &str, reason: &str) {
    use std::io::Write;
    eprintln!("skipped: {name}: {reason}");
    let Some(path) = std::env::var_os("OUTBOARD_SKIPS") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the list of skips");
    writeln!(file, "{name}\t{reason}").expect("the list of skips");
}
