//! The awkward headers are those of the W3C's own test suite (trace-context, `test/test.py`).

use super::*;

const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

#[test]
fn what_is_sent_on_names_the_trace_that_came_and_a_span_of_its_own() {
    let parent = TraceParent::parse(PARENT).expect("the suite's own example");
    assert_eq!((parent.to_string().as_str(), parent.trace_id().to_string().as_str()), (PARENT, &PARENT[3..35]));
    assert_eq!(parent.trace_id().bytes()[..2], [0x12, 0x34]);
    assert_eq!(parent.span_bytes(), [0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56]);
    let child = parent.child();
    assert_eq!((child.trace_id(), child.is_sampled()), (parent.trace_id(), true));
    assert_ne!(child.span_bytes(), parent.span_bytes());
    assert_eq!(TraceParent::parse(&child.to_string()), Some(child));
    let begun = TraceParent::begin();
    assert!(!begun.is_sampled() && begun.with_sampled(true).is_sampled());
    assert_eq!(TraceParent::parse(&begun.to_string()), Some(begun));
    assert_ne!(TraceParent::begin().trace_id(), begun.trace_id());
    assert_eq!(TraceParent::LENGTH, begun.to_string().len());
}

#[test]
fn what_the_standard_does_not_allow_is_no_parent() {
    let fields = |version: &str, trace: &str, span: &str, flags: &str| format!("{version}-{trace}-{span}-{flags}");
    let (trace, span) = ("12345678901234567890123456789012", "1234567890123456");
    let mut wrong = vec![
        String::new(),
        "00".to_owned(),
        "not a parent".to_owned(),
        // More than there is in version 00; more of a later version that is not set apart.
        format!("{PARENT}."),
        format!("{PARENT}-"),
        format!("{PARENT}-what-the-future-will-be-like"),
        fields("cc", trace, span, "01.what-the-future-will-be-like"),
        fields("cc", trace, span, "0123"),
        // No dashes where they belong.
        PARENT.replace('-', "_"),
        "00-1234567890123456789012345678901-21234567890123456-01".to_owned(),
        // Not a character of one byte each.
        fields("00", "1234567890123456789012345678901\u{e9}", span, "01"),
        fields("00", trace, "123456789012345\u{e9}", "01"),
    ];
    for version in ["ff", ".0", "0.", "000", "0000", "0", "", "FF", "0A"] {
        wrong.push(fields(version, trace, span, "01"));
    }
    for trace in [
        "00000000000000000000000000000000",
        ".2345678901234567890123456789012",
        "1234567890123456789012345678901.",
        "123456789012345678901234567890123",
        "1234567890123456789012345678901",
        "1234567890123456789012345678901A",
        "+2345678901234567890123456789012",
    ] {
        wrong.push(fields("00", trace, span, "01"));
    }
    for span in [
        "0000000000000000",
        ".234567890123456",
        "123456789012345.",
        "12345678901234567",
        "123456789012345",
        "123456789012345F",
    ] {
        wrong.push(fields("00", trace, span, "01"));
    }
    for flags in [".0", "0.", "001", "1", "", "0A", "+1"] {
        wrong.push(fields("00", trace, span, flags));
    }
    for text in wrong {
        assert_eq!(TraceParent::parse(&text), None, "{text}");
    }
}

#[test]
fn later_versions_and_unknown_flags_are_read_as_far_as_they_are_known() {
    let known = TraceParent::parse(PARENT);
    for text in
        [format!("cc{}", &PARENT[2..]), format!("cc{}-", &PARENT[2..]), format!("01{}-what-the-future", &PARENT[2..])]
    {
        assert_eq!(TraceParent::parse(&text), known, "{text}");
    }
    for (flags, written) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fe", "02")] {
        let parent = TraceParent::parse(&format!("{}{flags}", &PARENT[..53])).expect("any flags are allowed");
        assert_eq!(parent.to_string(), format!("{}{written}", &PARENT[..53]));
    }
}

fn state(headers: &[&str]) -> Option<String> {
    TraceState::parse(headers.iter().copied()).map(|state| state.as_str().to_owned())
}

#[test]
fn a_state_is_handed_on_in_one_header_and_in_order() {
    for (headers, expected) in [
        (&["foo=1"][..], "foo=1"),
        (&["foo=1,bar=2", "rojo=00f067aa0ba902b7"], "foo=1,bar=2,rojo=00f067aa0ba902b7"),
        // Empty members and blanks around them.
        (&["foo=1", ""], "foo=1"),
        (&["", "foo=1"], "foo=1"),
        (&["foo=1,", ",bar=2"], "foo=1,bar=2"),
        (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (&["foo=1\t \t,\t \tbar=2,\t \tbaz=3 "], "foo=1,bar=2,baz=3"),
        (&["0*/-_@a-z/_*=a b"], "0*/-_@a-z/_*=a b"),
    ] {
        assert_eq!(state(headers).as_deref(), Some(expected), "{headers:?}");
    }
    let long = format!("{}={}", "z".repeat(240) + "@v", "~".repeat(256));
    assert_eq!(state(&[&long]), Some(long.clone()));
}

#[test]
fn a_state_that_the_standard_does_not_allow_is_none() {
    for wrong in [
        "",
        " ",
        ",",
        "foo",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "foo@=1,bar=2",
        "@foo=1,bar=2",
        "foo@@bar=1,bar=2",
        "foo@bar@baz=1,bar=2",
        "=1",
        "foo=",
        "foo=bar=baz",
        "foo=,bar=3",
        "foo=\u{e9}",
        "foo=a\u{7}b",
        "-foo=1",
    ] {
        assert_eq!(state(&[wrong]), None, "{wrong:?}");
    }
    assert_eq!(state(&[&format!("{}=1", "z".repeat(257))]), None);
    assert_eq!(state(&[&format!("z={}", "z".repeat(257))]), None);
    let members = |count: usize| (0..count).map(|number| format!("bar{number:02}={number:02}")).collect::<Vec<_>>();
    assert_eq!(state(&[&members(32).join(",")]), Some(members(32).join(",")));
    assert_eq!(state(&[&members(33).join(",")]), None);
    assert_eq!(state(&[]), None);
}

#[test]
fn of_a_state_that_is_too_long_large_members_go_first_and_then_the_last() {
    let (large, small) = (format!("large={}", "x".repeat(200)), format!("small={}", "x".repeat(100)));
    let both = [large.as_str(), &small, &large, &small];
    assert_eq!(state(&both), Some(format!("{small},{small}")));
    let many = [small.as_str(); 6];
    assert_eq!(state(&many), Some([small.as_str(); 4].join(",")));
    assert!(state(&many).is_some_and(|kept| kept.len() <= TraceState::LONGEST));
}
