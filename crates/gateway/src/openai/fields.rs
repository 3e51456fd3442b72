//! The fields of a JSON object, each read by its name.
//!
//! Why not one struct for `serde`: its errors do not say which field a value belongs to, and clients are told the field, the value
//! and what is allowed.
//! Promises: nothing is copied or allocated for a value before it was checked; `null` is the same as absent.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use fault::Fault;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::{start_of, unreadable};

/// Most fields of an object: OpenAI's have about forty.
const MOST: usize = 128;

/// Most bytes of a value that are repeated to the client.
const SHOWN: usize = 64;

/// An object whose values are not read yet.
pub(super) struct Fields<'a> {
    /// What the object is, in front of the names: `messages[2].`.
    place: String,
    all: Pairs<'a>,
}

/// The fields of an object, in order.
type Pairs<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// A text, copied only where it has escapes in it.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads an object of at most so many fields.
struct Object {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Object {
    type Value = Pairs<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Pairs<'de>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<'de>, M::Error> {
        let mut all: Pairs<'de> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if all.iter().any(|(have, _)| *have == name) {
                return Err(M::Error::custom(format!("duplicate field `{}`", start_of(&name, SHOWN))));
            }
            if all.len() == self.most {
                return Err(M::Error::custom(format!("more than {} fields", self.most)));
            }
            all.push((name, map.next_value()?));
        }
        Ok(all)
    }
}

/// Reads a list of at most so many items.
struct List {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<&'de RawValue>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Vec<&'de RawValue>, S::Error> {
        let mut all = Vec::new();
        while let Some(item) = list.next_element()? {
            if all.len() == self.most {
                return Err(S::Error::custom(format!("more than {} items", self.most)));
            }
            all.push(item);
        }
        Ok(all)
    }
}

impl<'a> Fields<'a> {
    /// The fields of a whole body.
    ///
    /// # Errors
    /// InvalidInput when it is no JSON object, or one with a field twice.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, Fault> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let all = Object { most: MOST }.deserialize(&mut json).and_then(|all| json.end().map(|()| all));
        let all = all.map_err(|error| unreadable("the JSON body", &error))?;
        Ok(Self { place: String::new(), all })
    }

    /// The fields of an object that is a value itself.
    ///
    /// # Errors
    /// InvalidInput when it is no object, or one with too many fields or with a field twice.
    pub(super) fn of_value(value: &'a RawValue, place: &str) -> Result<Self, Fault> {
        Self::of_value_with(value, place, MOST)
    }

    fn of_value_with(value: &'a RawValue, place: &str, most: usize) -> Result<Self, Fault> {
        if !value.get().starts_with('{') {
            return Err(wrong(place, value.get(), "an object"));
        }
        let all = Object { most }.deserialize(&mut serde_json::Deserializer::from_str(value.get()));
        let all = all.map_err(|error| unreadable(place, &error).with_param(place.to_owned()))?;
        Ok(Self { place: format!("{place}."), all })
    }

    /// The field's name as the client must look for it.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// A value as it came.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.all.iter().find(|(have, _)| have == name)?;
        (value.get() != "null").then_some(*value)
    }

    /// Every name that has a value.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|(_, value)| value.get() != "null").map(|(name, _)| name.as_ref())
    }

    fn read<T>(&self, name: &str, allowed: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Result<Option<T>, Fault> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        read(value.get()).map(Some).ok_or_else(|| wrong(&self.place(name), value.get(), allowed))
    }

    /// # Errors
    /// InvalidInput when it is neither true nor false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        let value = self.read(name, "true or false", |text| serde_json::from_str(text).ok())?;
        Ok(value.unwrap_or(false))
    }

    /// # Errors
    /// InvalidInput when it is no text.
    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        self.read(name, "a text", |text| serde_json::from_str::<Text<'a>>(text).ok().map(|Text(text)| text))
    }

    /// # Errors
    /// InvalidInput when it is no whole number, or out of the range.
    pub(super) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, &allowed, |text| whole(text).filter(|value| range.contains(value)))
    }

    /// # Errors
    /// InvalidInput when it is no number, or out of the range.
    pub(super) fn decimal(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Fault> {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, &allowed, |text| text.parse().ok().filter(|value| range.contains(value)))
    }

    /// The items of a list, with their places.
    ///
    /// # Errors
    /// InvalidInput when it is no list, or one with more items than it may have.
    pub(super) fn list(&self, name: &str, most: usize) -> Result<Option<Vec<&'a RawValue>>, Fault> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let place = self.place(name);
        if !value.get().starts_with('[') {
            return Err(wrong(&place, value.get(), "a list"));
        }
        // It is valid JSON, so only its length is left to be wrong.
        let items = List { most }.deserialize(&mut serde_json::Deserializer::from_str(value.get())).map_err(|_| {
            Fault::invalid_input(format!("{place} has more than {most} items, which is the limit")).with_param(place)
        })?;
        Ok(Some(items))
    }

    /// The fields of an object inside this one.
    ///
    /// # Errors
    /// InvalidInput when it is no object.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Fault> {
        self.object_of(name, MOST)
    }

    /// The same with a limit of its own.
    pub(super) fn object_of(&self, name: &str, most: usize) -> Result<Option<Fields<'a>>, Fault> {
        self.raw(name).map(|value| Fields::of_value_with(value, &self.place(name), most)).transpose()
    }

    /// A field that is not there although it must be.
    pub(super) fn missing(&self, name: &str, allowed: &str) -> Fault {
        let place = self.place(name);
        Fault::invalid_input(format!("{place} is missing, expected {allowed}")).with_param(place)
    }
}

/// A whole number; `5.0` is one, as in JavaScript.
fn whole(text: &str) -> Option<i64> {
    let exact = text.parse();
    exact.ok().or_else(|| {
        let value: f64 = text.parse().ok()?;
        // Beyond this not every whole number is one of its own.
        (value.fract() == 0.0 && value.abs() <= 9e15).then_some(value as i64)
    })
}

/// A text that stands alone.
pub(super) fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|Text(text)| text)
}

/// A value that is not what it must be.
pub(super) fn wrong(place: &str, value: &str, allowed: &str) -> Fault {
    let short = start_of(value, SHOWN);
    let dots = if short.len() < value.len() { " ..." } else { "" };
    Fault::invalid_input(format!("{place} is {short}{dots}, allowed is {allowed}")).with_param(place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        Fields::of_body(text.as_bytes()).expect(text)
    }

    #[test]
    fn what_is_null_is_absent() {
        let fields = fields(r#"{"a": null, "b": null, "c": null, "d": null, "stop": null}"#);
        assert_eq!(fields.integer("a", 0..=1), Ok(None));
        assert_eq!(fields.decimal("b", 0.0..=1.0), Ok(None));
        assert_eq!(fields.flag("c"), Ok(false));
        assert_eq!(fields.text("nothing"), Ok(None));
        assert!(fields.list("stop", 1).is_ok_and(|list| list.is_none()));
        assert_eq!(fields.names().count(), 0);
    }

    #[test]
    fn a_value_out_of_its_range_is_named_with_the_range() {
        let fields = fields(r#"{"n": 0, "t": 2.5, "x": "hot", "list": [1, 2, 3], "big": 9223372036854775808}"#);
        for (fault, says) in [
            (fields.integer("n", 1..=16).map(drop), "n is 0, allowed is a whole number from 1 to 16"),
            (fields.integer("t", 0..=3).map(drop), "t is 2.5, allowed is a whole number from 0 to 3"),
            (fields.integer("big", 0..=i64::MAX).map(drop), "big is 9223372036854775808, allowed is"),
            (fields.decimal("t", 0.0..=2.0).map(drop), "t is 2.5, allowed is a number from 0 to 2"),
            (fields.decimal("x", 0.0..=2.0).map(drop), "x is \"hot\", allowed is a number from 0 to 2"),
            (fields.flag("n").map(drop), "n is 0, allowed is true or false"),
            (fields.text("n").map(drop), "n is 0, allowed is a text"),
            (fields.list("n", 2).map(drop), "n is 0, allowed is a list"),
            (fields.list("list", 2).map(drop), "list has more than 2 items, which is the limit"),
            (fields.object("n").map(drop), "n is 0, allowed is an object"),
        ] {
            let fault = fault.expect_err(says);
            assert!(fault.message.starts_with(says), "{fault}");
            assert!(fault.param.is_some_and(|param| says.starts_with(&*param)), "{says}");
        }
    }

    #[test]
    fn numbers_are_taken_as_scripts_write_them() {
        let fields = fields(r#"{"a": 5.0, "b": 1e2, "c": 7, "d": -9223372036854775808}"#);
        assert_eq!(fields.integer("a", 0..=9), Ok(Some(5)));
        assert_eq!(fields.integer("b", 0..=100), Ok(Some(100)));
        assert_eq!(fields.decimal("c", 0.0..=9.0), Ok(Some(7.0)));
        assert_eq!(fields.integer("d", i64::MIN..=0), Ok(Some(i64::MIN)));
    }

    #[test]
    fn places_inside_are_named_from_the_outside() {
        let fields = fields(r#"{"a": {"b": {"c": 1}}}"#);
        let inner = fields.object("a").and_then(|a| a.expect("there").object("b")).expect("objects").expect("there");
        assert_eq!(inner.text("c").expect_err("no text").param.as_deref(), Some("a.b.c"));
        assert_eq!(inner.missing("d", "a text").message, "a.b.d is missing, expected a text");
    }

    #[test]
    fn a_body_that_is_no_object_or_a_strange_one_is_refused() {
        let many: Vec<String> = (0..=MOST).map(|number| format!("\"f{number}\": 1")).collect();
        let many = format!("{{{}}}", many.join(","));
        for (text, says) in [
            ("", "EOF"),
            ("[]", "expected an object"),
            ("{\"a\": 1, \"a\": 2}", "duplicate field `a`"),
            ("{\"a\": 1} x", "trailing characters"),
            (&many, "more than 128 fields"),
        ] {
            let fault = Fields::of_body(text.as_bytes()).err().expect(says);
            assert!(fault.message.contains(says), "{fault}");
        }
    }

    #[test]
    fn a_long_value_is_cut_in_the_answer() {
        let long = "x".repeat(10_000);
        let text = format!(r#"{{"temperature": "{long}"}}"#);
        let fault = fields(&text).decimal("temperature", 0.0..=2.0).expect_err("no number");
        assert!(fault.message.len() < 200, "{fault}");
    }
}
