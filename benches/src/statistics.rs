//! Medians, percentiles and maxima.

/// The middle value, the lower one of two; `None` of nothing.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    percentile(values, 50)
}

/// The smallest value that `percent` of the values do not exceed; `None` of nothing.
#[must_use]
pub fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}

/// The greatest value; `None` of nothing.
#[must_use]
pub fn max(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    values.into_iter().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_a_value_that_was_measured() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median([]), None);
        assert_eq!(max([1.0, 3.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values = || (1..=200).rev().map(f64::from);
        assert_eq!(percentile(values(), 50), Some(100.0));
        assert_eq!(percentile(values(), 99), Some(198.0));
        assert_eq!(percentile(values(), 100), Some(200.0));
        assert_eq!(percentile([7.0], 99), Some(7.0));
        assert_eq!(percentile([], 99), None);
    }
}
