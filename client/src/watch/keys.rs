//! What keys mean: a question at a time, from the id of a connection to the certainty that it is to be
//! closed. It knows neither the server nor the screen.

use std::mem;
use std::time::{Duration, Instant};

use metp_protocol::ConnectionId;

use super::keyboard::Key;
use super::news::Connection;

/// The longest id: two numbers of ten digits and a dot.
const LONGEST_ID: usize = 21;

/// How long a message stands, unless a key is pressed before.
const MESSAGE: Duration = Duration::from_secs(5);

/// What somebody wants who has pressed a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing, or another question.
    Nothing,
    /// The end.
    Quit,
    /// The program stopped, until it is continued.
    Stop,
    /// All of the screen drawn anew.
    Redraw,
    /// A screen that stands still, or moves again.
    Pause,
    /// A connection cut.
    Cut(ConnectionId),
}

/// What is being asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Question {
    /// Nothing.
    #[default]
    None,
    /// Nothing; all keys are told.
    Help,
    /// Which connection is to be cut; what has been typed.
    Which(String),
    /// Whether this is the one.
    Sure(Box<Connection>),
}

/// The state of the dialogue.
#[derive(Debug, Default)]
pub struct Keys {
    /// What is being asked.
    pub question: Question,
    /// How many connections are scrolled away.
    pub skipped: usize,
    /// What there is to say, and until when.
    message: Option<(String, Instant)>,
}

impl Keys {
    /// Says something, for a while.
    pub fn say(&mut self, text: String, now: Instant) {
        self.message = now.checked_add(MESSAGE).map(|until| (text, until));
    }

    /// What there is to say.
    pub fn message(&self) -> Option<&str> {
        self.message.as_ref().map(|(text, _)| text.as_str())
    }

    /// Forgets a message that has stood long enough. Returns whether there was one.
    pub fn forget(&mut self, now: Instant) -> bool {
        self.message.take_if(|(_, until)| *until <= now).is_some()
    }

    /// Takes a key. `find` tells which connections there are.
    pub fn press(
        &mut self,
        key: Key,
        now: Instant,
        find: impl FnOnce(&str) -> Option<Connection>,
    ) -> Wish {
        match key {
            // Neither has to do with what is being asked.
            Key::Stop => return Wish::Stop,
            Key::Redraw => return Wish::Redraw,
            _ => {}
        }
        self.message = None;
        match (mem::take(&mut self.question), key) {
            (_, Key::End) => Wish::Quit,
            (_, Key::Escape) | (Question::Help, _) => Wish::Nothing,
            (question, Key::Up | Key::Down) => {
                self.question = question;
                self.skipped = match key {
                    Key::Up => self.skipped.saturating_sub(1),
                    _ => self.skipped.saturating_add(1),
                };
                Wish::Nothing
            }
            (Question::None, key) => self.command(key),
            (Question::Which(typed), key) => self.typing(typed, key, now, find),
            (Question::Sure(connection), Key::Char('y' | 'Y')) => {
                ConnectionId::parse(connection.id.as_bytes()).map_or(Wish::Nothing, Wish::Cut)
            }
            (Question::Sure(_), Key::Char('n' | 'N')) => Wish::Nothing,
            (question, _) => {
                self.question = question;
                Wish::Nothing
            }
        }
    }

    fn command(&mut self, key: Key) -> Wish {
        match key {
            Key::Char('q') => Wish::Quit,
            Key::Char('p') => Wish::Pause,
            Key::Char('k') => self.ask(Question::Which(String::new())),
            Key::Char('?' | 'h') => self.ask(Question::Help),
            _ => Wish::Nothing,
        }
    }

    fn ask(&mut self, question: Question) -> Wish {
        self.question = question;
        Wish::Nothing
    }

    fn typing(
        &mut self,
        mut typed: String,
        key: Key,
        now: Instant,
        find: impl FnOnce(&str) -> Option<Connection>,
    ) -> Wish {
        match key {
            Key::Enter => {
                match find(&typed) {
                    Some(connection) => self.question = Question::Sure(Box::new(connection)),
                    None if typed.is_empty() => {}
                    None => self.say(format!("There is no connection {typed}"), now),
                }
                return Wish::Nothing;
            }
            Key::Backspace => drop(typed.pop()),
            Key::Char(key @ ('0'..='9' | '.')) if typed.len() < LONGEST_ID => typed.push(key),
            _ => {}
        }
        self.question = Question::Which(typed);
        Wish::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses keys: `<` is Backspace, `!` Esc, `\n` Enter, `+` Down, `-` Up. There is a connection 17.3 alone.
    fn press(keys: &mut Keys, typed: &str) -> Wish {
        let mut wish = Wish::Nothing;
        for key in typed.chars() {
            let key = match key {
                '<' => Key::Backspace,
                '!' => Key::Escape,
                '+' => Key::Down,
                '-' => Key::Up,
                '\n' => Key::Enter,
                key => Key::Char(key),
            };
            let find = |id: &str| (id == "17.3").then(|| Connection::parse("id=17.3"));
            wish = keys.press(key, Instant::now(), find);
        }
        wish
    }

    #[test]
    fn a_connection_is_cut_after_a_question_only() {
        let id = ConnectionId { slot: 17, generation: 3 };
        let mut keys = Keys::default();
        assert_eq!(press(&mut keys, "k18<7x.3"), Wish::Nothing);
        assert_eq!(keys.question, Question::Which("17.3".into()));
        assert_eq!(press(&mut keys, "\nx\n"), Wish::Nothing);
        assert!(matches!(&keys.question, Question::Sure(connection) if connection.id == "17.3"));
        assert_eq!(press(&mut keys, "y"), Wish::Cut(id));
        for typed in ["k17.3\nny", "k17.3\n!y", "k17.3!y", "k\ny", "ky"] {
            let mut keys = Keys::default();
            assert_eq!(press(&mut keys, typed), Wish::Nothing, "{typed:?}");
        }
    }

    #[test]
    fn an_unknown_id_is_told() {
        let mut keys = Keys::default();
        press(&mut keys, "k17.4\n");
        assert_eq!(
            (keys.message(), &keys.question),
            (Some("There is no connection 17.4"), &Question::None)
        );
        press(&mut keys, "x");
        assert_eq!(keys.message(), None);
        press(&mut keys, &format!("k{}", "1".repeat(99)));
        assert_eq!(keys.question, Question::Which("1".repeat(LONGEST_ID)));
    }

    #[test]
    fn a_message_stands_for_a_while() {
        let now = Instant::now();
        let mut keys = Keys::default();
        assert!(!keys.forget(now));
        keys.say("Cut 17.3".into(), now);
        assert!(!keys.forget(now + MESSAGE - Duration::from_millis(1)));
        assert_eq!(keys.message(), Some("Cut 17.3"));
        assert!(keys.forget(now + MESSAGE));
        assert_eq!(keys.message(), None);
    }

    #[test]
    fn any_key_closes_the_help_and_does_nothing_else() {
        for typed in ["?q", "hq", "?!", "hk", "?+"] {
            let mut keys = Keys::default();
            press(&mut keys, &typed[..1]);
            assert_eq!(keys.question, Question::Help);
            assert_eq!(press(&mut keys, &typed[1..]), Wish::Nothing, "{typed}");
            assert_eq!((keys.question, keys.skipped), (Question::None, 0), "{typed}");
        }
    }

    #[test]
    fn arrows_scroll_also_while_a_connection_is_looked_for() {
        let mut keys = Keys::default();
        press(&mut keys, "-+++-k17");
        assert_eq!(keys.skipped, 2);
        press(&mut keys, "+.3");
        assert_eq!((keys.skipped, keys.question), (3, Question::Which("17.3".into())));
    }

    #[test]
    fn commands_are_none_while_something_is_asked() {
        assert_eq!(press(&mut Keys::default(), "q"), Wish::Quit);
        assert_eq!(press(&mut Keys::default(), "p"), Wish::Pause);
        assert_eq!(press(&mut Keys::default(), "kq"), Wish::Nothing);
        for typed in ["", "k1", "k17.3\n"] {
            let mut keys = Keys::default();
            press(&mut keys, typed);
            assert_eq!(keys.press(Key::End, Instant::now(), |_| None), Wish::Quit);
        }
    }
}
