//! Reading a job's metrics as its operator would: from the text that it serves.

use staunch::core::Metrics;

/// The metrics of a job at one moment.
#[derive(Debug)]
pub struct Scrape(String);

impl Scrape {
    /// Takes them.
    ///
    /// # Errors
    /// They cannot be encoded.
    pub fn of(metrics: &Metrics) -> staunch::core::Result<Self> {
        metrics.render().map(Self)
    }

    /// The sum of a metric over all its labels; 0 if it has no value yet.
    #[must_use]
    pub fn total(&self, name: &str) -> f64 {
        self.sum(name, "")
    }

    /// The sum of a metric over the workers of one step.
    #[must_use]
    pub fn of_step(&self, name: &str, step: &str) -> f64 {
        self.sum(name, &format!("step=\"{step}\""))
    }

    fn sum(&self, name: &str, label: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole_name = labels.is_empty() || labels.starts_with('{');
            (whole_name && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
        };
        self.0.lines().filter_map(value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_over_labels_and_names_are_not_confused() {
        let text = "# HELP a_total x\na_total{step=\"one\",worker=\"0\"} 2\na_total{step=\"one\",worker=\"1\"} 3\n\
                    a_total{step=\"two\",worker=\"0\"} 4\na_total_more 100\nb 1.5\n";
        let scrape = Scrape(text.to_owned());
        assert_eq!(scrape.total("a_total"), 9.0);
        assert_eq!(scrape.of_step("a_total", "one"), 5.0);
        assert_eq!(scrape.total("b"), 1.5);
        assert_eq!(scrape.total("c"), 0.0);
    }
}
