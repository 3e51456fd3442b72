//! The engine's and the runtime's types to and from those on the wire.

use std::time::UNIX_EPOCH;

use engine::{Classification, Model, State, Timing};
use fault::Fault;
use idl::health::ServingStatus;
use idl::inference as wire_types;
use idl::inference::{DataType, ModelInfo, ModelState, Placement, Task};
use runtime::{DType, Data, Dim, Tensor, TensorSpec};

pub(crate) fn micros(time: std::time::Duration) -> Option<i64> {
    Some(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

fn count(value: usize) -> Option<i32> {
    Some(i32::try_from(value).unwrap_or(i32::MAX))
}

pub(crate) fn timing(timing: &Timing) -> wire_types::Timing {
    wire_types::Timing {
        decode_us: micros(timing.decode),
        queue_us: micros(timing.queue),
        run_us: micros(timing.run),
        total_us: micros(timing.total),
        batch_rows: count(timing.batch_rows),
    }
}

pub(crate) fn classification(model: &Model, result: Classification) -> wire_types::Classification {
    let labels = result.labels.into_iter().map(|(index, score)| wire_types::Label {
        // A model without labels has numbers for names.
        label: Some(model.labels().get(index).cloned().unwrap_or_else(|| index.to_string())),
        index: count(index),
        score: Some(f64::from(score).into()),
    });
    wire_types::Classification {
        labels: Some(labels.collect()),
        width: Some(result.width as i32),
        height: Some(result.height as i32),
        format: Some(result.format.to_string().to_ascii_lowercase()),
        preview: result.preview,
    }
}

const TYPES: [(DType, DataType); 14] = [
    (DType::F32, DataType::F32),
    (DType::F64, DataType::F64),
    (DType::F16, DataType::F16),
    (DType::BF16, DataType::BF16),
    (DType::I8, DataType::I8),
    (DType::I16, DataType::I16),
    (DType::I32, DataType::I32),
    (DType::I64, DataType::I64),
    (DType::U8, DataType::U8),
    (DType::U16, DataType::U16),
    (DType::U32, DataType::U32),
    (DType::U64, DataType::U64),
    (DType::Bool, DataType::BOOL),
    (DType::String, DataType::STRING),
];

fn data_type(dtype: DType) -> Option<DataType> {
    TYPES.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs)
}

/// # Errors
/// InvalidInput, naming the tensor, when it has no name or type, or its elements are in the wrong field.
pub(crate) fn tensor_in(tensor: wire_types::Tensor) -> Result<(String, Tensor), Fault> {
    let Some(name) = tensor.name.filter(|name| !name.is_empty()) else {
        return Err(Fault::invalid_input("a tensor has no name").with_param("inputs"));
    };
    let bad = |message: String| Fault::invalid_input(message).with_param(name.clone());
    let known = tensor.data_type.and_then(|theirs| TYPES.iter().find(|(_, known)| *known == theirs));
    let Some((dtype, _)) = known else {
        let number = tensor.data_type.map_or("absent".to_owned(), |theirs| theirs.0.to_string());
        return Err(bad(format!("data_type of input `{name}` is {number}, allowed is 1 to 14")));
    };
    let data = match (dtype, tensor.data, tensor.strings) {
        (DType::String, None, Some(strings)) => Data::Strings(strings),
        (DType::String, ..) => return Err(bad(format!("input `{name}` is of strings: they belong into `strings`"))),
        (_, Some(bytes), None) => Data::Bytes(bytes),
        (_, None, None) => Data::Bytes(bytes::Bytes::new()),
        (_, _, Some(_)) => return Err(bad(format!("input `{name}` is {dtype}: its elements belong into `data`"))),
    };
    let shape = tensor.shape.unwrap_or_default();
    Ok((name.clone(), Tensor { dtype: *dtype, shape, data }))
}

pub(crate) fn tensor_out((name, tensor): (String, Tensor)) -> wire_types::Tensor {
    let (data, strings) = match tensor.data {
        Data::Bytes(bytes) => (Some(bytes), None),
        Data::Strings(strings) => (None, Some(strings)),
    };
    wire_types::Tensor {
        name: Some(name),
        data_type: data_type(tensor.dtype),
        shape: Some(tensor.shape),
        data,
        strings,
    }
}

fn tensor_spec(spec: &TensorSpec) -> wire_types::TensorSpec {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size as i64,
        Dim::Free(_) => -1,
    };
    let axis = |dim: &Dim| match dim {
        Dim::Free(Some(name)) => name.to_string(),
        Dim::Fixed(_) | Dim::Free(None) => String::new(),
    };
    wire_types::TensorSpec {
        name: Some(spec.name.clone()),
        data_type: data_type(spec.dtype),
        shape: spec.shape.as_ref().map(|dims| dims.iter().map(size).collect()),
        axes: spec.shape.as_ref().map(|dims| dims.iter().map(axis).collect()),
        has_default: spec.optional.then_some(true),
    }
}

pub(crate) fn model_info(model: &Model, with_labels: bool) -> ModelInfo {
    let what = model.describe();
    let (state, reason) = match model.state() {
        State::Loading => (ModelState::LOADING, None),
        State::Warming => (ModelState::WARMING, None),
        State::Ready => (ModelState::READY, None),
        State::Failed(reason) => (ModelState::FAILED, Some(reason)),
        State::Draining => (ModelState::DRAINING, None),
    };
    let task = match model.task() {
        engine::Task::Tensor => Task::TENSOR,
        engine::Task::Classify => Task::CLASSIFY,
        engine::Task::Embed => Task::EMBED,
        engine::Task::Transform => Task::TRANSFORM,
        engine::Task::Chat => Task::CHAT,
    };
    let placement = what.placement.into_iter();
    ModelInfo {
        name: Some(model.name().to_string()),
        version: Some(model.version().to_owned()),
        task: Some(task),
        state: Some(state),
        reason,
        inputs: Some(what.inputs.iter().map(tensor_spec).collect()),
        outputs: Some(what.outputs.iter().map(tensor_spec).collect()),
        labels: Some(if with_labels { model.labels().to_vec() } else { Vec::new() }),
        versions: Some(model.versions()),
        device: Some(what.chosen.as_ref().map(|chosen| chosen.device.to_string()).unwrap_or_default()),
        device_reason: what.chosen.map(|chosen| chosen.why),
        placement: Some(
            placement.map(|(provider, nodes)| Placement { provider: Some(provider), nodes: count(nodes) }).collect(),
        ),
        description: model.summary().map(str::to_owned),
        licence: model.licence().map(str::to_owned),
        max_rows: count(what.max_rows),
        classes: what.classes.and_then(count),
        max_context: what.slots.and_then(|slots| count(slots.context)),
        slots: what.slots.and_then(|slots| count(slots.count)),
        modified_s: model.modified().and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()),
    }
}

pub(crate) fn status(status: engine::Status) -> ServingStatus {
    match status {
        engine::Status::Serving => ServingStatus::SERVING,
        engine::Status::NotServing => ServingStatus::NOT_SERVING,
        engine::Status::Loading => ServingStatus::LOADING,
        engine::Status::Draining => ServingStatus::DRAINING,
    }
}
