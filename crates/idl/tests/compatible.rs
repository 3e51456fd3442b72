//! Old callers and new servers, and the other way round: the IDL against the last released one in `idl/released`.

mod idl_files;

use std::collections::BTreeMap;

use idl_files::{Field, Idl, folder};

/// Everything in `now` that a program built from `released` could stumble over.
fn breaks(released: &Idl, now: &Idl) -> Vec<String> {
    let mut found = Vec::new();
    for (name, (word, fields)) in &released.structs {
        match now.structs.get(name) {
            None => found.push(format!("{word} {name} is gone")),
            Some((now_word, _)) if now_word != word => found.push(format!("{word} {name} is a {now_word} now")),
            Some((_, now_fields)) => compare(name, fields, now_fields, &mut found),
        }
    }
    for (name, values) in &released.enums {
        for (number, value) in values {
            let same = now.enums.get(name).and_then(|values| values.get(number));
            if same != Some(value) {
                found.push(format!("{name}.{value} = {number} is {same:?} now"));
            }
        }
    }
    for (service, methods) in &released.services {
        for (name, method) in methods {
            let place = format!("{service}.{name}");
            let Some(new) = now.services.get(service).and_then(|methods| methods.get(name)) else {
                found.push(format!("method {place} is gone"));
                continue;
            };
            if (new.oneway, &new.reply) != (method.oneway, &method.reply) {
                found.push(format!("{place}: reply was {}, is {} now", method.reply, new.reply));
            }
            compare(&place, &method.arguments, &new.arguments, &mut found);
            compare(&place, &method.throws, &new.throws, &mut found);
            if method.arguments.len() != new.arguments.len() || method.throws.len() != new.throws.len() {
                found.push(format!("{place}: arguments or exceptions were added"));
            }
        }
    }
    found
}

fn compare(place: &str, released: &BTreeMap<i32, Field>, now: &BTreeMap<i32, Field>, found: &mut Vec<String>) {
    for (id, field) in released {
        match now.get(id) {
            None => found.push(format!("{place}: field {id} {} is gone; keep it and say it is unused", field.name)),
            Some(new) if (&new.kind, &new.requiredness) != (&field.kind, &field.requiredness) => found.push(format!(
                "{place}: field {id} was {} {}, is {} {} now",
                field.requiredness, field.kind, new.requiredness, new.kind
            )),
            Some(new) if new.name != field.name => {
                found.push(format!("{place}: field {id} was called {}, is {} now", field.name, new.name));
            }
            Some(_) => {}
        }
    }
    for (id, field) in now.iter().filter(|(id, _)| !released.contains_key(id)) {
        if field.requiredness != "optional" {
            found.push(format!("{place}: field {id} {} is new and not optional", field.name));
        }
    }
}

#[test]
fn the_idl_is_compatible_with_the_released_one() {
    let found = breaks(&Idl::read(&folder().join("released")), &Idl::read(&folder()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_kind_of_break_is_found() {
    const RELEASED: &str = "
        // a comment, /* not the start of another
        enum E { A = 1, B = 2 }
        struct S { 1: i32 a, /* two */ 2: optional list<E> b, 3: map<string, double> c }
        service V { S go(1: S s) throws (1: fault.Fault f), oneway void left(1: S s) }";
    let released = Idl::parse("x", RELEASED);
    assert_eq!(breaks(&released, &released), Vec::<String>::new());
    let changes = [
        ("1: i32 a", "1: i64 a", "was default i32, is default i64"),
        ("1: i32 a,", "", "field 1 a is gone"),
        ("1: i32 a", "1: i32 other", "was called a"),
        ("1: i32 a", "1: optional i32 a", "is optional i32"),
        ("1: i32 a", "1: i32 a, 9: i32 new", "new and not optional"),
        ("list<E>", "list<i32>", "list<i32>"),
        ("map<string, double>", "map<string, i64>", "map<string,i64>"),
        ("B = 2", "C = 2", "x.E.B = 2"),
        (", B = 2", "", "x.E.B = 2"),
        ("struct S", "union S", "is a union now"),
        ("S go(", "E go(", "reply was x.S"),
        ("oneway void left(1: S s)", "", "method x.V.left is gone"),
        ("go(1: S s)", "go(1: S s, 2: optional S t)", "were added"),
    ];
    for (from, to, words) in changes {
        let found = breaks(&released, &Idl::parse("x", &RELEASED.replacen(from, to, 1)));
        assert!(found.iter().any(|text| text.contains(words)), "{from} -> {to}: {found:?}");
    }
    let grown = RELEASED.replace("1: i32 a", "1: i32 a, 9: optional i32 new").replace("B = 2", "B = 2, C = 3");
    assert_eq!(breaks(&released, &Idl::parse("x", &grown)), Vec::<String>::new());
}
