//! Changes of a file of rules: one line comes or goes, all others stay byte for byte.

use std::fmt;

use super::{BYTE_ORDER_MARK, Rule, lines};

/// A change of one line. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The rule becomes this line; those from there on come after it.
    Insert(u32, Rule),
    /// The line goes. It has to hold this rule.
    Delete(u32, Rule),
}

/// A change does not fit the file. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadEdit {
    /// There is no such line, or no rule in it.
    NoRule(u32),
    /// The line has another rule: this one.
    Other(u32, Box<Rule>),
}

impl fmt::Display for BadEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEdit::NoRule(line) => write!(f, "there is no rule in line {line}"),
            BadEdit::Other(line, rule) => write!(f, "line {line} is: {rule}"),
        }
    }
}

/// The file with the change. Whether it is a good one is for [`super::parse`] to say.
///
/// # Errors
/// [`BadEdit`].
pub fn edit(content: &[u8], edit: &Edit) -> Result<Vec<u8>, BadEdit> {
    let (mark, content) = match content.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (BYTE_ORDER_MARK, rest),
        None => (&[][..], content),
    };
    let mut lines: Vec<&[u8]> = lines(content).collect();
    let (Edit::Insert(number, rule) | Edit::Delete(number, rule)) = edit;
    let place = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
    let place = place.ok_or(BadEdit::NoRule(*number))?;
    let text;
    match edit {
        Edit::Delete(..) => {
            let line = lines.get(place).and_then(|line| Rule::parse(line).ok().flatten());
            match line.ok_or(BadEdit::NoRule(*number))? {
                found if found == *rule => drop(lines.remove(place)),
                found => return Err(BadEdit::Other(*number, Box::new(found))),
            }
        }
        Edit::Insert(..) if place > lines.len() => return Err(BadEdit::NoRule(*number)),
        Edit::Insert(..) => {
            let before = place.checked_sub(1).and_then(|before| lines.get(before));
            // The line end is that of the file.
            let end = lines.first().map_or("\n", |line| match line {
                [.., b'\r', b'\n'] => "\r\n",
                _ => "\n",
            });
            // Of the last line it may be missing, all of it or the LF.
            let missing = match before {
                None | Some([.., b'\n']) => "",
                Some([.., b'\r']) => "\n",
                Some(_) => end,
            };
            text = format!("{missing}{rule}{end}");
            lines.insert(place, text.as_bytes());
        }
    }
    Ok([mark].into_iter().chain(lines).collect::<Vec<_>>().concat())
}
