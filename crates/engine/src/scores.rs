//! Raw outputs to scores, and the best of them.

use model_store::Activation;

/// A class and its score.
pub(crate) type Scored = (usize, f32);

/// The `top_k` best classes of one row, best first, equal ones by index; `None` when a value is not a number.
pub(crate) fn best(values: &[f32], activation: Activation, top_k: usize) -> Option<Vec<Scored>> {
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if values.iter().any(|value| value.is_nan()) || highest == f32::INFINITY {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by_value = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    let keep = top_k.min(order.len());
    if keep < order.len() {
        // A thousand classes need no full sort for five labels.
        order.select_nth_unstable_by(keep, by_value);
        order.truncate(keep);
    }
    order.sort_unstable_by(by_value);
    let score: Box<dyn Fn(f32) -> f32> = match activation {
        Activation::Softmax => {
            // In f64, so that a thousand small terms do not get lost.
            let sum: f64 = values.iter().map(|value| f64::from(value - highest).exp()).sum();
            Box::new(move |value| (f64::from(value - highest).exp() / sum) as f32)
        }
        Activation::Sigmoid => Box::new(|value| 1.0 / (1.0 + (-value).exp())),
        Activation::None => Box::new(|value| value),
    };
    Some(order.into_iter().map(|index| (index, score(values[index]))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_survives_large_values() {
        let all = best(&[1000.0, 999.0, -1000.0], Activation::Softmax, 3).expect("numbers");
        assert_eq!(all.iter().map(|one| one.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert!((all.iter().map(|one| one.1).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((all[0].1 - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn the_best_come_first_and_equal_ones_by_index() {
        let values = [0.1, 0.9, 0.5, 0.9, 0.2];
        assert_eq!(best(&values, Activation::None, 3), Some(vec![(1, 0.9), (3, 0.9), (2, 0.5)]));
        assert_eq!(best(&values, Activation::None, 100).map(|all| all.len()), Some(5));
    }

    #[test]
    fn sigmoid_scores_each_class_for_itself() {
        assert_eq!(best(&[0.0], Activation::Sigmoid, 1), Some(vec![(0, 0.5)]));
    }

    #[test]
    fn what_is_not_a_number_is_no_score() {
        assert_eq!(best(&[0.0, f32::NAN], Activation::Softmax, 1), None);
        assert_eq!(best(&[0.0, f32::INFINITY], Activation::Softmax, 1), None);
        assert!(best(&[0.0, f32::NEG_INFINITY], Activation::Softmax, 2).is_some());
    }
}
