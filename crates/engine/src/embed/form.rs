//! Tokens through the graph, and its output to vectors.
//!
//! Why groups: a run takes a rectangle of tokens, so a short text beside a long one costs as much as the long one. Texts run with
//! others of about their length, filled up to a common one; the mask keeps the graph from looking at the filling.

use std::collections::BTreeMap;

use model_store::{Embed, Pooling};
use runtime::{DType, Dim, RunError, Session, Stop, Tensor, TensorSpec};

/// Tokens in a piece: what the queue of an embedding model counts in.
pub(crate) const PIECE: usize = 16;

/// The length that a text of so many tokens is filled up to, `most` being the longest: at most an eighth more at 256 and beyond,
/// and few enough lengths that texts find company.
pub(crate) fn padded(tokens: usize, most: usize) -> usize {
    let step = match tokens {
        0..=64 => PIECE,
        65..=128 => 2 * PIECE,
        129..=512 => 4 * PIECE,
        _ => 8 * PIECE,
    };
    tokens.next_multiple_of(step).min(most.max(tokens))
}

/// Pieces that a length has.
pub(crate) fn pieces(length: usize) -> usize {
    length.div_ceil(PIECE)
}

/// What is done to a vector before it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    /// How many of the first numbers are kept.
    pub(crate) dimensions: usize,
    pub(crate) normalise: bool,
}

impl Finish {
    /// `None` when a value is not a number.
    pub(crate) fn apply(self, vector: &mut Vec<f32>) -> Option<()> {
        vector.truncate(self.dimensions);
        // In f64, where the square of no float overflows.
        let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        length.is_finite().then_some(())?;
        if self.normalise && length > 0.0 {
            vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
        Some(())
    }
}

/// What the graph takes and gives.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    ids: String,
    mask: Option<String>,
    types: Option<String>,
    output: String,
    pooling: Pooling,
    /// Most tokens of a text.
    most: usize,
    /// Texts may be filled up and share runs.
    pub(crate) joins: bool,
}

impl Form {
    /// # Errors
    /// What the graph has and what is taken.
    pub(crate) fn of(session: &Session, table: &Embed) -> Result<Self, String> {
        let mut form = Self {
            ids: String::new(),
            mask: None,
            types: None,
            output: output(session.outputs(), table)?,
            pooling: table.pooling,
            most: table.max_tokens,
            joins: false,
        };
        for spec in session.inputs().iter().filter(|spec| !spec.optional) {
            match spec.name.as_str() {
                "input_ids" => form.ids.clone_from(&spec.name),
                "attention_mask" => form.mask = Some(spec.name.clone()),
                "token_type_ids" => form.types = Some(spec.name.clone()),
                other => {
                    return Err(format!(
                        "the graph needs the input `{other}`, an embedding model is given input_ids, attention_mask and \
                         token_type_ids"
                    ));
                }
            }
            let free = |dims: &[Dim]| dims.len() == 2 && dims.iter().all(|dim| matches!(dim, Dim::Free(_)));
            if spec.dtype != DType::I64 || !spec.shape.as_deref().is_none_or(free) {
                let name = &spec.name;
                return Err(format!("input `{name}` must be i64 with two free axes, texts and tokens"));
            }
        }
        if form.ids.is_empty() { Err("the graph has no input `input_ids`".to_owned()) } else { Ok(form) }
    }

    /// The length that a text of so many tokens runs with.
    pub(crate) fn length(&self, tokens: usize) -> usize {
        if self.joins { padded(tokens, self.most) } else { tokens }
    }

    /// Pooled vectors of the texts, in their order.
    pub(crate) fn run(&self, session: &mut Session, texts: &[&[u32]], stop: &Stop) -> Result<Vec<Vec<f32>>, RunError> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, text) in texts.iter().enumerate() {
            groups.entry(self.length(text.len())).or_default().push(at);
        }
        let mut vectors = vec![Vec::new(); texts.len()];
        for (length, group) in groups {
            let members: Vec<&[u32]> = group.iter().map(|at| texts[*at]).collect();
            for (at, vector) in group.into_iter().zip(self.run_at(session, &members, length, stop)?) {
                vectors[at] = vector;
            }
        }
        Ok(vectors)
    }

    /// The same in one run with this length, which no text exceeds.
    pub(crate) fn run_at(
        &self,
        session: &mut Session,
        texts: &[&[u32]],
        length: usize,
        stop: &Stop,
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let cells = texts.len() * length;
        let (mut ids, mut mask) = (Vec::with_capacity(cells), Vec::with_capacity(cells));
        for text in texts {
            ids.extend(text.iter().map(|id| i64::from(*id)));
            mask.resize(ids.len(), 1);
            // 0 is some token of every vocabulary; which one it is, nobody looks at.
            ids.resize(ids.len() + length - text.len(), 0);
            mask.resize(ids.len(), 0);
        }
        let shape = [texts.len() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::from_i64(&shape, values);
        let (ids, mask, types) = (tensor(&ids), tensor(&mask), tensor(&vec![0; cells]));
        let mut inputs = vec![(self.ids.as_str(), &ids)];
        inputs.extend(self.mask.as_deref().map(|name| (name, &mask)));
        inputs.extend(self.types.as_deref().map(|name| (name, &types)));
        let outputs = session.run(&inputs, &[self.output.as_str()], stop)?;
        let output = outputs.first().map(|(_, tensor)| tensor);
        output.and_then(|output| self.pool(output, texts, length)).ok_or_else(|| {
            let came = output.map(|output| format!("{} {:?}", output.dtype, output.shape)).unwrap_or_default();
            let (name, rows) = (&self.output, texts.len());
            RunError::Failed(format!(
                "output `{name}` is {came} for {rows} texts of {length} tokens, needed is f32 \
                                      [texts, tokens, numbers] or [texts, numbers]"
            ))
        })
    }

    fn pool(&self, output: &Tensor, texts: &[&[u32]], length: usize) -> Option<Vec<Vec<f32>>> {
        let sizes: Vec<usize> = output.shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
        let values = output.to_f32()?;
        match sizes[..] {
            [rows, numbers] if rows == texts.len() && numbers > 0 => {
                Some(values.chunks_exact(numbers).map(<[f32]>::to_vec).collect())
            }
            [rows, tokens, numbers] if rows == texts.len() && tokens == length && numbers > 0 => {
                let of_texts = values.chunks_exact(tokens * numbers).zip(texts);
                Some(
                    of_texts
                        .map(|(of_tokens, text)| pool(&of_tokens[..text.len() * numbers], numbers, self.pooling))
                        .collect(),
                )
            }
            _ => None,
        }
    }
}

/// One vector of those of a text's tokens, `numbers` in each.
fn pool(of_tokens: &[f32], numbers: usize, pooling: Pooling) -> Vec<f32> {
    match pooling {
        Pooling::Cls => of_tokens[..numbers].to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0_f32; numbers];
            for token in of_tokens.chunks_exact(numbers) {
                sum.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
            }
            let count = (of_tokens.len() / numbers) as f32;
            sum.iter_mut().for_each(|sum| *sum /= count);
            sum
        }
    }
}

fn output(outputs: &[TensorSpec], table: &Embed) -> Result<String, String> {
    let named = |name: &str| outputs.iter().find(|spec| spec.name == name);
    let chosen = match table.output.as_deref() {
        Some(name) => named(name).ok_or_else(|| {
            let known: Vec<&str> = outputs.iter().map(|spec| spec.name.as_str()).collect();
            format!("`embed.output` is `{name}`, the model's outputs are: {}", known.join(", "))
        })?,
        None => named("last_hidden_state").or(outputs.first()).ok_or("the graph has no output")?,
    };
    match chosen.dtype {
        DType::F32 => Ok(chosen.name.clone()),
        other => Err(format!("output `{}` is {other}, needed is f32", chosen.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_few_never_shorter_than_the_text_and_never_longer_than_the_model_takes() {
        let most = 500;
        let lengths: std::collections::BTreeSet<usize> = (1..=most).map(|tokens| padded(tokens, most)).collect();
        assert!((1..=most).all(|tokens| (tokens..=most).contains(&padded(tokens, most))));
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 500]);
        assert_eq!([pieces(1), pieces(16), pieces(17), pieces(500)], [1, 1, 2, 32]);
    }

    #[test]
    fn the_mean_and_the_first_are_of_the_text_alone() {
        let of_tokens = [1.0, 10.0, 3.0, 20.0];
        assert_eq!(pool(&of_tokens, 2, Pooling::Mean), [2.0, 15.0]);
        assert_eq!(pool(&of_tokens, 2, Pooling::Cls), [1.0, 10.0]);
    }

    #[test]
    fn a_vector_is_cut_before_it_is_normalised() {
        let finish = |dimensions, normalise, mut vector: Vec<f32>| {
            Finish { dimensions, normalise }.apply(&mut vector).map(|()| vector)
        };
        assert_eq!(finish(2, true, vec![3.0, 4.0, 100.0]), Some(vec![0.6, 0.8]));
        assert_eq!(finish(3, false, vec![3.0, 4.0, 100.0]), Some(vec![3.0, 4.0, 100.0]));
        assert_eq!(finish(2, true, vec![0.0, 0.0]), Some(vec![0.0, 0.0]), "nothing has no direction");
        assert_eq!(finish(2, true, vec![1e30, 0.0]), Some(vec![1.0, 0.0]));
        assert_eq!(finish(2, true, vec![f32::NAN, 0.0]), None);
        assert_eq!(finish(2, false, vec![f32::INFINITY, 0.0]), None);
    }
}
