//! How figures are written for people: few digits, with the point where the eye expects it.

/// `0.004`, `3.2`, `45`, `1.2k`, `3.4M`: for places with little room.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        "-".to_owned()
    } else if magnitude >= 999_500.0 {
        trimmed(value / 1e6, 2) + "M"
    } else if magnitude >= 10_000.0 {
        trimmed(value / 1e3, 1) + "k"
    } else if !(1e-9..100.0).contains(&magnitude) {
        trimmed(value, 0)
    } else if magnitude >= 1.0 {
        trimmed(value, 1)
    } else {
        trimmed(value, 3)
    }
}

/// At most six digits behind the point, and none that are zero: for limits, which must be recognised.
pub(crate) fn exact(value: f64) -> String {
    if value.is_finite() { trimmed(value, 6) } else { "-".to_owned() }
}

/// What is held against a limit: three digits behind the point, six where it is small.
pub(crate) fn near(value: f64) -> String {
    if value.is_finite() && value.abs() >= 1.0 { trimmed(value, 3) } else { exact(value) }
}

/// Milliseconds for a column: two digits behind the point up to 100, then none.
pub(crate) fn millis(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A rate or count without its fraction.
pub(crate) fn whole(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "-".to_owned();
    }
    grouped(rounded(value))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked by the caller; `as` saturates")]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

/// `1,234,567`
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share of one as `12.3 %`, with more digits where it is small.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let decimals = if value != 0.0 && value.abs() < 1.0 { 3 } else { 2 };
    format!("{} %", trimmed(value, decimals))
}

/// Without zeros behind the point.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_figures_keep_what_matters() {
        let written = [0.0, 0.0042, 0.5, 3.25, 45.0, 250.4, 9_999.0, 12_345.0, 999_900.0, 3_400_000.0].map(short);
        assert_eq!(written, ["0", "0.004", "0.5", "3.2", "45", "250", "9999", "12.3k", "1M", "3.4M"]);
        assert_eq!(short(f64::NAN), "-");
    }

    #[test]
    fn limits_and_columns() {
        assert_eq!([0.005, 2.5, 1e-9, 150_000.0].map(exact), ["0.005", "2.5", "0", "150000"]);
        assert_eq!([0.000_451, 2.500_4, 700.392_419].map(near), ["0.000451", "2.5", "700.392"]);
        assert_eq!([0.2, 11.345, 1234.5].map(millis), ["0.20", "11.35", "1234"]);
        assert_eq!([0.4, 12_345.6, f64::NAN].map(whole), ["0", "12,346", "-"]);
    }

    #[test]
    fn groups_and_shares() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.00012, 0.123_45, 1.0].map(percent), ["0 %", "0.012 %", "12.35 %", "100 %"]);
    }
}
