//! The values of pairs (§3.4), and how each type of value is written and read.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use super::key::ValueForm;
use super::text::{Escaped, shortened};
use crate::quantity::{decimal, is_digits};

/// How much is shown of a value, in octets (§3.4): so a whole line fits into its limit.
const LONGEST_FIELD: usize = 256;
/// How much is shown of a line of text, in octets.
const LONGEST_TEXT: usize = 900;

/// A text as it stands in a pair: `-` if there is none. One that was made by this type, and is no
/// list, has 1 to 256 octets of %x21-7E. One that was read out of a line is what the line had there.
///
/// ```
/// use metp_protocol::Field;
///
/// assert_eq!(Field::name(b"two words").to_string(), "two\\x20words");
/// assert_eq!(Field::new("").value(), None);
/// assert_eq!(Field::optional(None::<u16>), Field::NONE);
/// assert!(Field::new("x".repeat(300)).as_str().ends_with("..."));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a>(Cow<'a, str>);

impl Field<'_> {
    /// There is no value.
    pub const NONE: Field<'static> = Field(Cow::Borrowed("-"));

    /// Displays `value`, which has to be escaped already if it comes from outside. What is long is cut, and what
    /// is empty is `-`.
    pub fn new(value: impl Display) -> Field<'static> {
        let shown = value.to_string();
        if shown.is_empty() {
            return Field::NONE;
        }
        Field(Cow::Owned(shortened(shown, LONGEST_FIELD)))
    }

    /// A name from outside: escaped, and cut if it is long. It may be empty: anything can be tried as a login.
    pub fn name(octets: &[u8]) -> Field<'static> {
        Field::new(Escaped(octets))
    }

    /// A line of text: escaped, and cut if a line of the protocol with two numbers beside it has no room for it.
    ///
    /// ```
    /// assert_eq!(metp_protocol::Field::text("deny port 25").as_str(), "deny\\x20port\\x2025");
    /// ```
    pub fn text(line: &str) -> Field<'static> {
        Field(Cow::Owned(shortened(Escaped(line.as_bytes()).to_string(), LONGEST_TEXT)))
    }

    /// Displays the value, if there is one, as [`Field::new`] does.
    pub fn optional(value: Option<impl Display>) -> Field<'static> {
        value.map_or(Field::NONE, Field::new)
    }

    /// Words with commas between them, however many.
    pub fn list<'w>(words: impl IntoIterator<Item = &'w str>) -> Field<'static> {
        Field(Cow::Owned(words.into_iter().collect::<Vec<_>>().join(",")))
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, unless it is `-`.
    pub fn value(&self) -> Option<&str> {
        Some(self.as_str()).filter(|text| *text != "-")
    }
}

impl Default for Field<'_> {
    fn default() -> Self {
        Field::NONE
    }
}

impl Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads seconds, whole or with a fraction: no sign, no exponent.
///
/// ```
/// use std::time::Duration;
/// use metp_protocol::seconds;
///
/// assert_eq!(seconds("61.250"), Some(Duration::from_millis(61_250)));
/// assert_eq!((seconds("-1"), seconds("1e3"), seconds("."), seconds("")), (None, None, None, None));
/// ```
pub fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let plain = is_digits(whole.as_bytes()) && is_digits(fraction.as_bytes());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .and_then(|time| Duration::try_from_secs_f64(time).ok())
}

/// What a field of a record can be. A value that is missing or not of its form is read as none or zero, so that
/// a client shows what it can of what a faulty server sends.
pub(crate) trait Value<'a>: Default {
    /// Writes the value as `form` says.
    fn write(&self, form: ValueForm, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads the value; `None` is returned for a text that is not of its form.
    fn read(text: &'a str) -> Option<Self>;
}

impl<'a> Value<'a> for Field<'a> {
    fn write(&self, _: ValueForm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt(f)
    }

    fn read(text: &'a str) -> Option<Self> {
        Some(Field(Cow::Borrowed(text)))
    }
}

impl Value<'_> for u64 {
    fn write(&self, _: ValueForm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt(f)
    }

    fn read(text: &str) -> Option<Self> {
        decimal(text.as_bytes())
    }
}

impl Value<'_> for Duration {
    fn write(&self, form: ValueForm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if form == ValueForm::Micros { 6 } else { 3 };
        write!(f, "{:.digits$}", self.as_secs_f64())
    }

    fn read(text: &str) -> Option<Self> {
        seconds(text)
    }
}

impl<'a, T: Value<'a>> Value<'a> for Option<T> {
    fn write(&self, form: ValueForm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Some(value) => value.write(form, f),
            None => Field::NONE.fmt(f),
        }
    }

    fn read(text: &'a str) -> Option<Self> {
        T::read(text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_cut_and_never_empty() {
        let escapes = |count| "\\x01".repeat(count);
        assert_eq!(Field::new(escapes(64)).as_str(), escapes(64));
        assert_eq!(Field::name(&[1; 65]).as_str(), format!("{}...", escapes(63)));
        assert_eq!(Field::name(b"").as_str(), "-");
        assert_eq!(Field::optional(Some(17)).as_str(), "17");
        assert_eq!(Field::default().value(), None);
    }

    #[test]
    fn seconds_are_digits_and_a_point() {
        for text in ["inf", "NaN", "+1", "1.", ".5", "1.2.3", "1e400", " 1", "0x1"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        let huge = "9".repeat(400);
        assert_eq!(seconds(&huge), None);
        assert_eq!(seconds("0.000001"), Some(Duration::from_micros(1)));
        assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
    }
}
