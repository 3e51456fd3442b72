//! What `multipleOf` costs in a schema, looked at before anything is made of the schema.
//!
//! Why: the library makes a state of each remainder, and counts neither their time nor their memory by its limits: one number of ten
//! digits took minutes and ten gigabytes. Where schemas are joined it multiplies their numbers in 32 bits, whether they fit or not, so
//! that answers would be held to another number.
//! Promises: the numbers of a schema that passes cost at most [`MOST`] states together, a fraction of a second, and none overflows.

use std::collections::BTreeSet;

use serde_json::Value;

/// Most remainders of all numbers of a schema together: 20,000 take 0.15 s on one core, a million takes ten.
const MOST: u128 = 20_000;

/// Most digits behind the point: the library's remainders have 32 bits, and it shifts them by so many digits.
const DIGITS: u32 = 8;

/// Most of what divides by all numbers that are joined: the library multiplies two of those in 32 bits.
const MOST_JOINED: u128 = u16::MAX as u128;

/// Keywords that join schemas, so that a number can meet another one: then both must divide a value.
const JOINING: [&str; 9] = ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "dependentSchemas", "if", "then", "else"];

/// A number as so many units of the last digit, of which there are `digits` behind the point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Multiple {
    units: u128,
    digits: u32,
}

impl Multiple {
    /// As the library reads it; none of what it refuses itself.
    fn read(value: &Value) -> Option<Self> {
        let (mut value, mut digits) = (value.as_f64()?.abs(), 0);
        while value.fract() != 0.0 {
            value *= 10.0;
            digits += 1;
        }
        // Below 2^32 a float is exact.
        (value >= 1.0 && value <= f64::from(u32::MAX)).then_some(Self { units: value as u128, digits })
    }

    /// Remainders that can be told apart. Those of a power of ten are seen from the last digits alone.
    fn states(self) -> u128 {
        let mut rest = self.units;
        while rest.is_multiple_of(10) {
            rest /= 10;
        }
        if rest == 1 { 1 } else { self.units }
    }

    fn in_units_of(self, digits: u32) -> u128 {
        self.units * 10_u128.pow(digits - self.digits)
    }
}

/// # Errors
/// Why the numbers of a schema are more work than they are worth.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let (mut all, mut joins) = (Vec::new(), false);
    let mut left = vec![schema];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => {
                all.extend(fields.get("multipleOf").and_then(Multiple::read));
                joins |= JOINING.iter().any(|keyword| fields.contains_key(*keyword));
                left.extend(fields.values());
            }
            _ => {}
        }
    }
    if let Some(fine) = all.iter().find(|multiple| multiple.digits > DIGITS) {
        return Err(format!("multipleOf has {} digits behind the point, the limit is {DIGITS}", fine.digits));
    }
    let different: BTreeSet<Multiple> = all.iter().copied().collect();
    let states: u128 = different.iter().map(|multiple| multiple.states()).sum();
    if states > MOST {
        return Err(format!(
            "its multipleOf have {states} remainders together, the limit is {MOST}; powers of ten count as one"
        ));
    }
    if joins { check_joined(&different) } else { Ok(()) }
}

/// As if every number met every other one, and itself: which of them do is known only once the schema is resolved.
fn check_joined(all: &BTreeSet<Multiple>) -> Result<(), String> {
    let digits = all.iter().map(|multiple| multiple.digits).max().unwrap_or(0);
    let mut joined = Multiple { units: 1, digits };
    for multiple in all {
        let units = multiple.in_units_of(digits);
        joined.units = joined.units / gcd(joined.units, units) * units;
        if joined.units > MOST_JOINED {
            let most = format!("{MOST_JOINED} units of the last digit");
            return Err(format!("its multipleOf can be joined to more than {most}, which is the limit"));
        }
    }
    let states = joined.states();
    if states > MOST {
        return Err(format!("its multipleOf have {states} remainders when they are joined, the limit is {MOST}"));
    }
    Ok(())
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_people_write_pass() {
        let (cents, day) = (json!({"type": "number", "multipleOf": 0.01}), json!({"multipleOf": 3600}));
        for schema in [
            json!({}),
            cents.clone(),
            json!({"multipleOf": 1_000_000_000}),
            json!({"multipleOf": -16_384}),
            json!({"properties": {"price": cents, "seconds": day, "multipleOf": {"type": "string"}}}),
            json!({"allOf": [{"multipleOf": 0.5}, {"multipleOf": 4}], "properties": {"a": {"multipleOf": 25}}}),
            json!({"allOf": [{"multipleOf": 10_000}, {"multipleOf": 1_000}]}),
        ] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn what_would_cost_too_much_is_refused_wherever_it_stands() {
        let many: Vec<_> = (0..100).map(|at| json!({"multipleOf": 900 + at})).collect();
        for (schema, says) in [
            (json!({"multipleOf": 2_147_483_648_u32}), "2147483648 remainders"),
            (json!({"items": [{"properties": {"a": {"multipleOf": 20_001}}}]}), "20001 remainders"),
            (json!({"multipleOf": 1234.567}), "1234567 remainders"),
            (json!({"prefixItems": many}), "94950 remainders together"),
            (json!({"multipleOf": 1e-9}), "9 digits behind the point"),
            (json!({"allOf": [{"multipleOf": 9_973}, {"multipleOf": 9_967}]}), "joined to more than 65535"),
            (
                json!({"$ref": "#/$defs/a", "multipleOf": 7, "$defs": {"a": {"multipleOf": 10_007}}}),
                "joined to more than 65535",
            ),
            // Alone it is cheap; with itself it is more than 32 bits.
            (json!({"allOf": [{"multipleOf": 100_000}, {"multipleOf": 100_000}]}), "joined to more than 65535"),
            (json!({"$ref": "#/$defs/a", "$defs": {"a": {"multipleOf": 100_000}}}), "joined to more than 65535"),
            (json!({"allOf": [{"multipleOf": 211}, {"multipleOf": 199}]}), "41989 remainders when they are joined"),
            (json!({"allOf": [{"multipleOf": 1_000_000}, {"multipleOf": 0.01}]}), "joined to more than 65535"),
        ] {
            let reason = check(&schema).expect_err(says);
            assert!(reason.contains(says), "{schema}: {reason}");
        }
    }
}
