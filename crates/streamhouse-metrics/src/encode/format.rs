//! Which format a scrape is answered in.

/// The exposition formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    Text,
    /// OpenMetrics 1.0 text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily` messages, each after its length: the one with native histograms.
    Protobuf,
}

impl Format {
    /// Every format, those that tell more first.
    const ALL: [Format; 3] = [Format::Protobuf, Format::OpenMetrics, Format::Text];

    /// The `Content-Type` of an answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The format that these `Accept` headers want most (RFC 9110, 12.5.1); text, which everybody reads, when they want
    /// none of ours or say nothing.
    ///
    /// What is asked for by name goes before what a wildcard lets in, and of several equally wanted the one that tells
    /// more.
    pub fn negotiate<'h>(accept: impl IntoIterator<Item = &'h str>) -> Format {
        let ranges: Vec<Range<'_>> = accept
            .into_iter()
            .flat_map(|header| split_unquoted(header, ','))
            .filter_map(Range::parse)
            .collect();
        let wanted = |format: Format| {
            let fitting = ranges.iter().filter_map(|range| Some((range.fits(format)?, range.quality)));
            fitting.max_by_key(|(closeness, quality)| (*closeness, *quality))
        };
        let mut best = (0, Closeness::Anything, Format::Text);
        for format in Format::ALL {
            let Some((closeness, quality)) = wanted(format) else { continue };
            // Nobody who only takes what comes wants anything but text.
            let by_name = closeness >= Closeness::Type || format == Format::Text;
            if by_name && quality > 0 && (quality, closeness) > (best.0, best.1) {
                best = (quality, closeness, format);
            }
        }
        best.2
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Format::Text => ("text", "plain"),
            Format::OpenMetrics => ("application", "openmetrics-text"),
            Format::Protobuf => ("application", "vnd.google.protobuf"),
        }
    }

    /// Whether a parameter of the format's media type may have this value; parameters that say nothing about what is
    /// served may have any.
    fn allows(self, parameter: &str, value: &str) -> bool {
        match (self, parameter) {
            (Format::Text, "version") => value == "0.0.4",
            (Format::OpenMetrics, "version") => value == "1.0.0",
            (Format::Protobuf, "proto") => value == "io.prometheus.client.MetricFamily",
            (Format::Protobuf, "encoding") => value == "delimited",
            (Format::Text | Format::OpenMetrics, "charset") => value.eq_ignore_ascii_case("utf-8"),
            _ => true,
        }
    }
}

/// How closely a media range names a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// `*/*`.
    Anything,
    /// `text/*`.
    Family,
    /// `text/plain`.
    Type,
    /// `text/plain; version=0.0.4`.
    Parameters,
}

/// One element of an `Accept` header.
struct Range<'h> {
    family: &'h str,
    name: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
    /// In thousandths.
    quality: u16,
}

impl<'h> Range<'h> {
    /// `None` when it is malformed: it then asks for nothing.
    fn parse(element: &'h str) -> Option<Range<'h>> {
        let mut parts = split_unquoted(element, ';').map(str::trim);
        let (family, name) = parts.next()?.split_once('/')?;
        let mut range = Range { family, name, parameters: Vec::new(), quality: 1000 };
        for part in parts.filter(|part| !part.is_empty()) {
            let (parameter, value) = part.split_once('=')?;
            let (parameter, value) = (parameter.trim(), value.trim().trim_matches('"'));
            if parameter.eq_ignore_ascii_case("q") {
                range.quality = thousandths(value)?;
            } else {
                range.parameters.push((parameter, value));
            }
        }
        Some(range)
    }

    /// How closely it names the format; `None` when it does not let it in.
    fn fits(&self, format: Format) -> Option<Closeness> {
        let (family, name) = format.media_type();
        if self.family == "*" && self.name == "*" {
            return Some(Closeness::Anything);
        }
        if !self.family.eq_ignore_ascii_case(family) {
            return None;
        }
        if self.name == "*" {
            return Some(Closeness::Family);
        }
        let allowed =
            |(parameter, value): &(&str, &str)| format.allows(&parameter.to_ascii_lowercase(), value);
        if !self.name.eq_ignore_ascii_case(name) || !self.parameters.iter().all(allowed) {
            return None;
        }
        Some(if self.parameters.is_empty() { Closeness::Type } else { Closeness::Parameters })
    }
}

/// A quality of at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// The parts between separators outside of quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Prometheus 2.42 sends, and with native histograms.
    const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_NATIVE: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited,\
        application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    /// What Prometheus 3 sends.
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const BROWSER: &str =
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

    #[test]
    fn clients_get_what_they_want_most() {
        for (accept, format) in [
            (PROMETHEUS, Format::OpenMetrics),
            (PROMETHEUS_NATIVE, Format::Protobuf),
            (PROMETHEUS_3, Format::OpenMetrics),
            (BROWSER, Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("text/plain", Format::Text),
            ("text/*", Format::Text),
            ("application/*", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=1.0.0; charset=UTF-8", Format::OpenMetrics),
            ("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text; version=0.0.1", Format::Text),
            ("application/openmetrics-text; version=2.0.0, text/plain;q=0.1", Format::Text),
            ("application/vnd.google.protobuf", Format::Protobuf),
            ("application/vnd.google.protobuf; proto=other", Format::Text),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text",
                Format::Text,
            ),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.5", Format::OpenMetrics),
            ("text/plain;q=0.501, application/openmetrics-text;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0, */*", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
        ] {
            assert_eq!(Format::negotiate([accept]), format, "{accept}");
        }
        assert_eq!(Format::negotiate([]), Format::Text);
        assert_eq!(Format::negotiate(["text/plain;q=0.2", PROMETHEUS_NATIVE]), Format::Protobuf);
    }

    #[test]
    fn what_is_malformed_asks_for_nothing() {
        for accept in [
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=0.1234",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=",
            "application/openmetrics-text;q",
            "application/openmetrics-text;;version",
            "application",
            "/",
            ",;,=;\"",
            "\"application/openmetrics-text",
        ] {
            assert_eq!(Format::negotiate([accept]), Format::Text, "{accept}");
        }
        assert_eq!(Format::negotiate(["junk, application/openmetrics-text;;q=0.3"]), Format::OpenMetrics);
    }

    #[test]
    fn the_closest_range_says_how_much_a_format_is_wanted() {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.1, application/openmetrics-text, text/plain;q=0.5";
        assert_eq!(Format::negotiate([accept]), Format::Text);
    }
}
