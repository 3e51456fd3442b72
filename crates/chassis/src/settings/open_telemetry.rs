//! The variables that every program with OpenTelemetry in it knows, so that an operator sets them once for all.

use std::collections::HashMap;

use super::SettingsError;
use super::layer::Layer;

/// Variables that say what a key of ours says.
const SAME: [(&str, &str); 4] = [
    ("OTEL_SERVICE_NAME", "traces.service"),
    ("OTEL_TRACES_SAMPLER", "traces.sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "traces.ratio"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "traces.queue"),
];

/// Where all signals go, each to its own path below it; where traces alone go, as it is.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Nothing is sent, whatever else is set.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// What the environment says, for a program that has the table `traces`. As the standard has it, an empty variable says nothing.
pub(super) fn layers(
    environment: &HashMap<String, String>,
    defaults: &toml::Table,
) -> Result<Vec<Layer>, SettingsError> {
    if !defaults.contains_key("traces") {
        return Ok(Vec::new());
    }
    let said = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let layer = |name: &str, key: &str, value: &str| {
        Layer::of_text(key, value, &[], defaults, format!("environment variable {name}={value}"))
    };
    let mut layers = Vec::new();
    for (name, key) in SAME {
        if let Some(value) = said(name) {
            layers.push(layer(name, key, value)?);
        }
    }
    if said(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(layers);
    }
    if let Some(address) = said(TRACES_ENDPOINT) {
        layers.push(layer(TRACES_ENDPOINT, "traces.endpoint", address)?);
    } else if let Some(address) = said(ENDPOINT) {
        let address = format!("{}/v1/traces", address.trim_end_matches('/'));
        layers.push(layer(ENDPOINT, "traces.endpoint", &address)?);
    }
    Ok(layers)
}
