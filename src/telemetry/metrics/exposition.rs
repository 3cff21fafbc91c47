//! Writer of Prometheus' text format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use super::value::{HistogramTotal, bound_nanos};
use std::fmt::{Display, Write};

/// The type of a metric, as its TYPE line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Text under construction. Names are constants of this crate; only label values are escaped.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes) }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Opens a metric: its HELP and TYPE lines. All its samples must follow before the next one.
    pub(super) fn open(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.put(format_args!("# HELP {name} "));
        escape(&mut self.text, help, false);
        self.put(format_args!("\n# TYPE {name} {kind}\n"));
    }

    /// One line: a value under `name` with `labels`.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            self.text.push(if position == 0 { '{' } else { ',' });
            self.put(format_args!("{label}=\""));
            escape(&mut self.text, text, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    /// A metric that has one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.open(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A whole histogram. Its count is the sum of its buckets, so the two never disagree.
    pub(super) fn histogram(&mut self, name: &str, help: &str, total: &HistogramTotal) {
        self.open(name, Kind::Histogram, help);
        let bucket_name = format!("{name}_bucket");
        let mut count = 0;
        for (index, in_bucket) in total.buckets.iter().enumerate() {
            count += in_bucket;
            let bound = Seconds(bound_nanos(index).into()).to_string();
            self.sample(&bucket_name, &[("le", &bound)], count);
        }
        count += total.over;
        self.sample(&bucket_name, &[("le", "+Inf")], count);
        self.sample(&format!("{name}_sum"), &[], Seconds(total.nanos));
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

/// Nanoseconds, written as seconds without rounding.
pub(super) struct Seconds(pub(super) u128);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Appends `text` with the characters escaped that would end a HELP line or a label value.
fn escape(out: &mut String, text: &str, in_quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if in_quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_label_values_are_escaped_as_the_format_demands() {
        let mut out = Exposition::default();
        out.open("a", Kind::Gauge, "back\\slash, \"quote\"\nand line");
        out.sample("a", &[("x", "back\\slash, \"quote\"\nand line"), ("y", "é")], 1);
        let expected = concat!(
            "# HELP a back\\\\slash, \"quote\"\\nand line\n",
            "# TYPE a gauge\n",
            "a{x=\"back\\\\slash, \\\"quote\\\"\\nand line\",y=\"é\"} 1\n",
        );
        assert_eq!(out.finish(), expected);
    }

    #[test]
    fn seconds_are_written_exactly() {
        let written = |nanos| Seconds(nanos).to_string();
        assert_eq!(written(0), "0");
        assert_eq!(written(50_000), "0.00005");
        assert_eq!(written(1_000_000_000), "1");
        assert_eq!(written(419_430_400_001), "419.430400001");
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let mut total = HistogramTotal::default();
        total.buckets[0] = 3;
        total.buckets[2] = 4;
        total.over = 5;
        total.nanos = 1_500_000_000;
        let mut out = Exposition::default();
        out.histogram("h", "Help.", &total);
        let text = out.finish();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples[0], "h_bucket{le=\"0.00005\"} 3");
        assert_eq!(samples[1], "h_bucket{le=\"0.0001\"} 3");
        assert_eq!(samples[2], "h_bucket{le=\"0.0002\"} 7");
        let end = &samples[samples.len() - 3..];
        assert_eq!(end, ["h_bucket{le=\"+Inf\"} 12", "h_sum 1.5", "h_count 12"]);
    }
}
