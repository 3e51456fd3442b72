//! A log event as one JSON object in one line: `timestamp`, `level`, the event's own fields, `target`.
//!
//! Why not the subscriber's own: there is one event for each request, and its serialiser checks and copies every piece of the line,
//! which doubles what a line costs (`examples/log_cost.rs`).

use std::fmt::{self, Debug, Write as _};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What most lines fit, so that a line is one allocation.
const USUAL: usize = 512;

/// The format.
pub(crate) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line(Vec::with_capacity(USUAL));
        line.0.extend_from_slice(b"{\"timestamp\":\"");
        let mut time = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        line.0.extend_from_slice(time.as_bytes());
        line.0.push(b'"');
        // An event that comes from the `log` crate has its true metadata among its fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        line.field("level", metadata.level().as_str());
        event.record(&mut line);
        line.field("target", metadata.target());
        line.0.extend_from_slice(b"}\n");
        writer.write_str(std::str::from_utf8(&line.0).map_err(|_| fmt::Error)?)
    }
}

/// A line that is being made.
struct Line(Vec<u8>);

impl Line {
    fn field<V: Serialize + ?Sized>(&mut self, name: &str, value: &V) {
        // Fields of the `log` crate's events: what they say stands in `level` and `target`.
        if name.starts_with("log.") {
            return;
        }
        self.0.push(b',');
        self.value(name.strip_prefix("r#").unwrap_or(name));
        self.0.push(b':');
        self.value(value);
    }

    fn value<V: Serialize + ?Sized>(&mut self, value: &V) {
        let begin = self.0.len();
        if serde_json::to_writer(&mut self.0, value).is_err() {
            // Writing to memory and these types do not fail; a line must stay a line all the same.
            self.0.truncate(begin);
            self.0.extend_from_slice(b"null");
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // A `Debug` that fails has said what it could.
        let _ = write!(text, "{value:?}");
        self.field(field.name(), &text);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::util::SubscriberInitExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(events: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let to = written.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || to.clone()).event_format(JsonLine);
        let guard = builder.finish().set_default();
        events();
        drop(guard);
        let text = String::from_utf8(written.0.lock().expect("whole").clone()).expect("is text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_has_the_fields_in_order_with_their_types() {
        let lines = lines(|| {
            tracing::info!(
                name = "a \"b\"\n\u{1}\u{202e}é", count = 3_u64, below = -2_i64, share = 0.25, yes = true, none = Option::<&str>::None,
                shown = %"x\ty", nan = f64::NAN, r#type = "t", "it went"
            );
        });
        let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
        let value: Value = serde_json::from_str(line).expect("is JSON");
        let mut rest = line.split_once("Z\",").expect("a timestamp").1.to_owned();
        rest.push('\n');
        assert_eq!(
            rest,
            "\"level\":\"INFO\",\"message\":\"it went\",\"name\":\"a \\\"b\\\"\\n\\u0001\u{202e}é\",\"count\":3,\"below\":-2,\
             \"share\":0.25,\"yes\":true,\"shown\":\"x\\ty\",\"nan\":null,\"type\":\"t\",\
             \"target\":\"chassis::json_line::tests\"}\n"
        );
        let time = value["timestamp"].as_str().expect("text");
        assert_eq!((time.len(), &time[10..11], &time[26..]), (27, "T", "Z"), "{time}");
    }

    #[test]
    fn events_of_the_log_crate_have_their_own_target() {
        let lines = lines(|| {
            let record = tracing_log::log::Record::builder()
                .args(format_args!("from elsewhere"))
                .level(tracing_log::log::Level::Warn)
                .target("other::crate")
                .build();
            tracing_log::format_trace(&record).expect("is told");
        });
        let value: Value = serde_json::from_str(&lines[0]).expect("is JSON");
        assert_eq!(
            (&value["level"], &value["target"], &value["message"]),
            (&"WARN".into(), &"other::crate".into(), &"from elsewhere".into())
        );
        assert_eq!(value.as_object().expect("an object").len(), 4, "{value}");
    }
}
