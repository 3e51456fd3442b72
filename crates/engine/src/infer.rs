//! Named tensors through a model.

use std::time::Duration;

use bytes::Bytes;
use fault::Fault;
use runtime::{DType, Data, Tensor};

use crate::job::{Floats, Outcome, Want, Work};
use crate::model::{Model, Serving, fault_of};
use crate::{CallScope, Timing};

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The outputs that were asked for, in that order.
    pub outputs: Vec<(String, Tensor)>,
    /// Where the time went.
    pub timing: Timing,
}

impl Model {
    /// Runs the model on named tensors. `outputs` empty means all. Dropping the future withdraws the call.
    ///
    /// Rows of a model whose rows are independent share runs with other callers'; everything else runs alone.
    ///
    /// # Errors
    /// A [`Fault`] whose `param` is the tensor at fault.
    pub async fn infer(
        &self,
        inputs: Vec<(String, Tensor)>,
        outputs: Vec<String>,
        call: CallScope,
    ) -> Result<Inferred, Fault> {
        let serving = self.serving()?;
        self.check_names(serving, &inputs, &outputs)?;
        let (work, rows, joins) = match self.as_rows(serving, &inputs, &outputs) {
            Some((data, rows, wanted)) => {
                let want = Want::Outputs(wanted);
                (Work::Rows { data: Floats::Came(data), want, _room: None }, rows, true)
            }
            None => (Work::Tensors { inputs, outputs }, 1, false),
        };
        let answer = serving.lane().submit(work, rows, joins, call, None).await?;
        let timing = Timing {
            decode: Duration::ZERO,
            queue: answer.queue,
            run: answer.run,
            total: call.received.elapsed(),
            batch_rows: answer.batch_rows,
            began: Some(answer.began),
            batch: answer.batch,
        };
        match answer.outcome.map_err(|error| fault_of(error, self.name(), answer.run, answer.lonely))? {
            Outcome::Tensors(outputs) => Ok(Inferred { outputs, timing }),
            Outcome::Best(_) | Outcome::Vectors(_) => Err(Fault::internal("something else came back for tensors")),
        }
    }

    /// What is wrong with the request is told before it waits.
    fn check_names(&self, serving: &Serving, inputs: &[(String, Tensor)], outputs: &[String]) -> Result<(), Fault> {
        let bad = |name: &str, message: String| Err(Fault::invalid_input(message).with_param(name.to_owned()));
        for (at, (name, tensor)) in inputs.iter().enumerate() {
            let Some(spec) = serving.inputs().iter().find(|spec| spec.name == *name) else {
                let known: Vec<&str> = serving.inputs().iter().map(|spec| spec.name.as_str()).collect();
                return bad(name, format!("the model has no input `{name}`, it has: {}", known.join(", ")));
            };
            if inputs[..at].iter().any(|(earlier, _)| earlier == name) {
                return bad(name, format!("input `{name}` is there twice"));
            }
            if let Err(reason) = spec.check(tensor) {
                return bad(name, format!("input `{name}` {reason}"));
            }
        }
        for spec in serving.inputs().iter().filter(|spec| !spec.optional) {
            if !inputs.iter().any(|(name, _)| *name == spec.name) {
                return bad(&spec.name, format!("input `{}` is missing", spec.name));
            }
        }
        for (at, name) in outputs.iter().enumerate() {
            if outputs[..at].contains(name) {
                return bad("outputs", format!("output `{name}` is asked for twice"));
            }
            if !serving.outputs().iter().any(|spec| spec.name == *name) {
                let known: Vec<&str> = serving.outputs().iter().map(|spec| spec.name.as_str()).collect();
                return bad("outputs", format!("the model has no output `{name}`, it has: {}", known.join(", ")));
            }
        }
        Ok(())
    }

    /// The request as rows that can share a run: data, rows, and the positions of the wanted outputs.
    fn as_rows(
        &self,
        serving: &Serving,
        inputs: &[(String, Tensor)],
        outputs: &[String],
    ) -> Option<(Bytes, usize, Vec<usize>)> {
        let form = serving.rows().filter(|_| serving.joins())?;
        let [(_, tensor)] = inputs else { return None };
        let rows =
            usize::try_from(*tensor.shape.first()?).ok().filter(|rows| (1..=serving.max_rows()).contains(rows))?;
        let same_shape = tensor.shape[1..].iter().map(|size| *size as usize).eq(form.shape.iter().copied());
        if tensor.dtype != DType::F32 || !same_shape {
            return None;
        }
        let all = || (0..serving.outputs().len()).collect::<Vec<_>>();
        let position = |name: &String| serving.outputs().iter().position(|spec| spec.name == *name);
        let wanted =
            if outputs.is_empty() { all() } else { outputs.iter().map(position).collect::<Option<Vec<_>>>()? };
        wanted.iter().all(|at| serving.outputs()[*at].dtype == DType::F32).then_some(())?;
        match &tensor.data {
            Data::Bytes(bytes) => Some((bytes.clone(), rows, wanted)),
            Data::Strings(_) => None,
        }
    }
}
