//! What `cases.json` asks for.

use std::path::Path;

use serde_json::Value;

pub(crate) struct Plan {
    pub(crate) clients: Vec<Client>,
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) protocols: Vec<String>,
    pub(crate) transports: Vec<String>,
}

pub(crate) struct Case {
    pub(crate) name: String,
    outcome: String,
    transports: Vec<String>,
    expect: Value,
    message: Option<String>,
    same_text_as: Option<String>,
    last: bool,
    says_request_id: bool,
}

impl Plan {
    /// # Panics
    /// When the file is not as its README says.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("it is in the tree");
        let plan: Value = serde_json::from_str(&text).expect("it is JSON");
        let clients = plan["clients"].as_array().expect("a list").iter().map(Client::of).collect();
        let cases = plan["cases"].as_array().expect("a list").iter().map(Case::of).collect();
        Self { clients, cases }
    }
}

impl Client {
    fn of(value: &Value) -> Self {
        Self {
            name: text(&value["name"]),
            protocols: texts(&value["protocols"]),
            transports: texts(&value["transports"]),
        }
    }
}

impl Case {
    fn of(value: &Value) -> Self {
        let transports = match &value["transports"] {
            Value::Null => vec!["framed".to_owned(), "multiplexed".to_owned()],
            given => texts(given),
        };
        let (way, outcome) = (text(&value["way"]), text(&value["outcome"]));
        // Health and the pieces of a stream have ids of their own, which no client reports.
        let says_request_id = match outcome.as_str() {
            "fault" => true,
            "reply" => !matches!(way.as_str(), "check" | "stream" | "stop"),
            _ => false,
        };
        Self {
            name: text(&value["name"]),
            outcome,
            transports,
            expect: value["expect"].clone(),
            message: value["message"]
                .as_str()
                .filter(|_| way != "complete" && way != "stream" && way != "stop")
                .map(str::to_owned),
            same_text_as: value["same_text_as"].as_str().map(str::to_owned),
            last: value["last"] == true,
            says_request_id,
        }
    }

    pub(crate) fn is_for(&self, transport: &str) -> bool {
        self.transports.iter().any(|known| known == transport)
    }

    /// What is wrong with what was seen; `others` looks up what was seen in another case of the same client.
    pub(crate) fn fault(&self, seen: &Value, others: impl Fn(&str) -> Option<Value>) -> Option<String> {
        if seen["outcome"] != *self.outcome {
            return Some(format!("{} was expected", self.outcome));
        }
        for (key, value) in self.expect.as_object().into_iter().flatten() {
            if !is_alike(&seen[key], value) {
                return Some(format!("{key} must be {value}"));
            }
        }
        if let Some(part) = &self.message
            && !seen["message"].as_str().is_some_and(|message| message.contains(part))
        {
            return Some(format!("the message must have {part:?}"));
        }
        if self.says_request_id && seen["request_id"] != format!("conformance-{}", self.name) {
            return Some("request_id must be the one that was sent".to_owned());
        }
        if !self.last && seen["goes_on"] != true {
            return Some("the connection must be usable after it".to_owned());
        }
        let other = self.same_text_as.as_deref()?;
        let same = others(other).is_some_and(|other| other["text"] == seen["text"]);
        (!same).then(|| format!("text must be that of {other}"))
    }
}

/// Equal; a whole number may come as a float, as in languages that have no other.
fn is_alike(seen: &Value, wanted: &Value) -> bool {
    seen == wanted || (seen.is_number() && seen.as_f64() == wanted.as_f64())
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(text).collect()
}
