//! What a run costs by its number of rows, measured, and the batch size that follows from it.
//!
//! Why: on GPUs a bigger batch is nearly free, on CPUs it often costs more for each row than single runs (the caches
//! overflow), and for tiny networks the hand-over costs as much as the run. Nobody should have to know which; the measured
//! curve does.
//!
//! Its shape is that of the quiet first runs. Later runs move all of it up or down together: they are slower because others
//! use the machine, whatever their size. Moving only the size that ran made the sizes that did not run look cheap, so that
//! under load ever bigger batches were chosen (seen on a 224x224 network: 8 rows a run at three times the latency).

use std::time::Duration;

/// Handing a batch to a worker and its answers back, beside the run itself: wake-ups, thread switches, one more write to the
/// connection. Found by running a tiny net at 64 callers in batches of 4, 8 and 12 rows and fitting the CPU time a request.
const HAND_OVER: f64 = 25e-6;

/// A smaller batch is taken when the larger one costs less by a smaller factor than this for each row: the smaller one is
/// ready sooner.
const WORTH_WAITING: f64 = 1.2;
/// As [`WORTH_WAITING`], where the larger batch takes less than [`SHORT`]: nobody notices how long it takes.
const WORTH_A_MOMENT: f64 = 1.03;
/// In seconds.
const SHORT: f64 = 1e-3;

/// How much one run's time moves the curve. A hundredth follows slow changes (a hotter chip, another tenant) and forgets an
/// outlier.
const FOLLOW: f64 = 0.01;

/// Seconds of a run for some numbers of rows, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<(usize, f64)>,
    /// What runs take now by what they took when they were measured.
    pace: f64,
    /// [`Curve::best`] of one row, two rows and so on, up to the last point: it is asked for at every request.
    best: Vec<usize>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), pace: 1.0, best: Vec::new() }
    }
}

impl Curve {
    /// The curve through measured points; the shortest time counts when one number of rows is there twice.
    #[must_use]
    pub fn new(measured: impl IntoIterator<Item = (usize, Duration)>) -> Self {
        let mut points: Vec<(usize, f64)> = Vec::new();
        for (rows, time) in measured {
            let time = time.as_secs_f64();
            match points.binary_search_by_key(&rows, |point| point.0) {
                Ok(at) => points[at].1 = points[at].1.min(time),
                Err(at) => points.insert(at, (rows, time)),
            }
        }
        let mut curve = Self { points, ..Self::default() };
        let last = curve.points.last().map_or(0, |point| point.0);
        curve.best = (1..=last).map(|most| curve.find_best(most)).collect();
        curve
    }

    /// The points as they were measured, ascending by rows.
    pub fn points(&self) -> impl Iterator<Item = (usize, Duration)> + '_ {
        self.points.iter().map(|(rows, time)| (*rows, Duration::from_secs_f64(*time)))
    }

    /// Seconds that a run with `rows` rows took when it was measured: between the points a straight line, beyond the last in proportion.
    fn seconds(&self, rows: usize) -> f64 {
        let above = self.points.partition_point(|point| point.0 < rows);
        match (above.checked_sub(1).map(|below| self.points[below]), self.points.get(above)) {
            (_, Some((at, time))) if *at == rows => *time,
            (Some((low, start)), Some((high, end))) => {
                start + (end - start) * (rows - low) as f64 / (high - low) as f64
            }
            (None, Some((at, time))) => time * rows as f64 / *at as f64,
            (Some((at, time)), None) => time * rows as f64 / at as f64,
            (None, None) => 0.0,
        }
    }

    /// What a run with `rows` rows takes now; zero when nothing was measured.
    #[must_use]
    pub fn estimate(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(rows) * self.pace)
    }

    /// What a row costs when `rows` share a run.
    fn each(&self, rows: usize) -> f64 {
        (self.seconds(rows) + HAND_OVER) / rows as f64
    }

    /// How many rows to run together when at most `most` can be: the fewest for which no larger batch is so much cheaper for
    /// each row that it makes up for being ready later.
    #[must_use]
    pub fn best(&self, most: usize) -> usize {
        let most = most.max(1);
        if self.points.is_empty() {
            return most;
        }
        self.best.get(most - 1).copied().unwrap_or_else(|| self.find_best(most))
    }

    fn find_best(&self, most: usize) -> usize {
        let sizes = || self.points.iter().map(|point| point.0).filter(|rows| *rows < most).chain([most]);
        let pays = |small: usize, large: usize| {
            let worth = if self.seconds(large) < SHORT { WORTH_A_MOMENT } else { WORTH_WAITING };
            self.each(small) > self.each(large) * worth
        };
        sizes().find(|small| !sizes().any(|large| large > *small && pays(*small, large))).unwrap_or(most)
    }

    /// Moves the curve a little towards what a run took.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        let measured = self.seconds(rows);
        if measured > 0.0 {
            // A run that was preempted for a while says nothing of the model.
            let pace = (took.as_secs_f64() / measured).min(self.pace * 4.0);
            self.pace += FOLLOW * (pace - self.pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(usize, u64)]) -> Curve {
        Curve::new(points.iter().map(|(rows, micros)| (*rows, Duration::from_micros(*micros))))
    }

    #[test]
    fn a_convolution_net_on_a_cpu_runs_single_rows() {
        let costs_more = curve(&[(1, 3400), (2, 7000), (4, 14_400), (8, 30_000)]);
        assert_eq!(costs_more.best(8), 1);
        assert_eq!(costs_more.best(1), 1);
    }

    #[test]
    fn a_tiny_net_runs_batches_that_pay_for_the_hand_over() {
        let tiny = curve(&[(1, 27), (2, 45), (4, 85), (8, 160), (16, 315), (32, 620)]);
        assert_eq!(tiny.best(32), 32);
        assert_eq!(tiny.best(3), 3);
        // Twice the work for each row: from 16 rows on the hand-over no longer counts.
        let small = curve(&[(1, 53), (2, 102), (4, 200), (8, 391), (16, 782), (32, 1564)]);
        assert_eq!(small.best(32), 16);
    }

    #[test]
    fn a_device_that_does_many_at_the_price_of_one_gets_all_there_are() {
        let gpu = curve(&[(1, 1000), (8, 1100), (32, 1300), (128, 2500)]);
        assert_eq!(gpu.best(128), 128);
        assert_eq!(gpu.best(20), 20);
    }

    #[test]
    fn times_between_the_points_lie_on_a_line() {
        let line = curve(&[(2, 200), (4, 600)]);
        assert_eq!(line.estimate(3), Duration::from_micros(400));
        assert_eq!(line.estimate(1), Duration::from_micros(100));
        assert_eq!(line.estimate(8), Duration::from_micros(1200));
        assert_eq!(Curve::default().estimate(8), Duration::ZERO);
        assert_eq!(Curve::default().best(8), 8);
    }

    #[test]
    fn the_curve_follows_what_runs_take_and_forgets_an_outlier() {
        let mut moving = curve(&[(1, 1000)]);
        moving.observe(1, Duration::from_secs(60));
        assert!(moving.estimate(1) < Duration::from_micros(1050));
        for _ in 0..1000 {
            moving.observe(1, Duration::from_micros(2000));
        }
        assert!(moving.estimate(1) > Duration::from_micros(1990));
        assert_eq!(moving.points().collect::<Vec<_>>(), [(1, Duration::from_micros(1000))]);
        let mut nothing = Curve::default();
        nothing.observe(5, Duration::from_secs(1));
        assert_eq!(nothing.estimate(5), Duration::ZERO);
    }

    #[test]
    fn a_little_less_work_is_no_reason_to_wait_for_a_long_batch() {
        // Measured on a machine with other things to do: 8 % less for each row, seven times the latency.
        let little = curve(&[(1, 7075), (2, 14_152), (4, 30_372), (8, 51_853), (16, 129_266)]);
        assert_eq!(little.best(16), 1);
        let much = curve(&[(1, 7000), (8, 20_000)]);
        assert_eq!(much.best(8), 8);
    }

    #[test]
    fn a_busy_machine_does_not_make_batches_grow() {
        let mut busy = curve(&[(1, 4969), (2, 9732), (4, 20_329), (8, 60_984), (16, 132_257)]);
        assert_eq!(busy.best(16), 1);
        for _ in 0..1000 {
            busy.observe(1, Duration::from_micros(12_000));
        }
        assert_eq!(busy.best(16), 1);
        assert!(busy.estimate(1) > Duration::from_micros(11_000), "what waits is judged by what runs take now");
    }
}
