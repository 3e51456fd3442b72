//! A plain HTTP client that takes every status as an answer.

use std::time::Duration;

use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, with values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text()))
    }

    /// `error.code` of an error answer, after checking that it has the whole form.
    ///
    /// # Panics
    /// When the body is not `{"error": {"message", "type", "param", "code", "request_id"}}`.
    #[must_use]
    pub fn error_code(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        for field in ["message", "type", "code", "request_id"] {
            assert!(error[field].is_string(), "error without `{field}`: {body}");
        }
        assert!(error.get("param").is_some(), "error without `param`: {body}");
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"), "{body}");
        error["code"].as_str().expect("checked above").to_owned()
    }
}

/// A client for one address.
pub struct Http {
    agent: ureq::Agent,
    base: String,
}

impl Http {
    /// A client for `http://address`, which waits 30 s for an answer.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Self { agent: config.into(), base: format!("http://{address}") }
    }

    /// The base address, `http://host:port`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        self.agent.get(format!("{}{path}", self.base)).call().and_then(answer)
    }

    /// GET.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// POST with headers.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send(body).and_then(answer)
    }

    /// POST with headers.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(path, headers, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// PUT with a body of JSON.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn put_json(&self, path: &str, body: &Value) -> Answer {
        let request = self.agent.put(format!("{}{path}", self.base)).header("content-type", "application/json");
        let sent = request.send(body.to_string().as_bytes()).and_then(answer);
        sent.unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }

    /// DELETE.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        let sent = self.agent.delete(format!("{}{path}", self.base)).call().and_then(answer);
        sent.unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec()?;
    Ok(Answer { status, headers, body })
}
