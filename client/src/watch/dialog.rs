//! What keys do: commands, and the prompts from the id of a connection to the confirmation that it is to be
//! closed. It depends neither on the server nor on the screen.

use std::mem;
use std::time::{Duration, Instant};

use metp_protocol::ConnectionId;

use super::input::KeyPress;
use super::news::ConnectionInfo;

/// The longest connection id: two numbers of ten digits and a dot.
const MAX_ID_CHARS: usize = 21;

/// How long a message is shown, unless a key is pressed.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// What the caller has to do after a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing else than to draw the dialog.
    Nothing,
    /// End the program.
    Quit,
    /// Stop the program until it is continued.
    Suspend,
    /// Draw the whole screen again.
    Redraw,
    /// Pause, or end the pause.
    Pause,
    /// Close this connection.
    Kill(ConnectionId),
}

/// A prompt in the last line of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    #[default]
    None,
    /// No prompt: the box with all keys is shown.
    Help,
    /// The id of the connection to close, as far as it has been typed.
    KillWhich(String),
    /// Whether this connection is to be closed.
    ConfirmKill(Box<ConnectionInfo>),
}

/// The state of the dialog.
#[derive(Debug, Default)]
pub struct Dialog {
    /// The prompt that is open.
    pub prompt: Prompt,
    /// The number of connections that are scrolled off the top of their table.
    pub skipped: usize,
    /// The message, and when it disappears.
    message: Option<(String, Instant)>,
}

impl Dialog {
    /// Shows a message for [`MESSAGE_TIME`].
    pub fn say(&mut self, text: String, now: Instant) {
        self.message = now.checked_add(MESSAGE_TIME).map(|until| (text, until));
    }

    /// The message that is shown.
    pub fn message(&self) -> Option<&str> {
        self.message.as_ref().map(|(text, _)| text.as_str())
    }

    /// Removes the message if its time is over. Returns whether it did.
    pub fn forget(&mut self, now: Instant) -> bool {
        self.message.take_if(|(_, until)| *until <= now).is_some()
    }

    /// Handles a key. `find` returns the open connection of an id.
    pub fn press(
        &mut self,
        key: KeyPress,
        now: Instant,
        find: impl FnOnce(&str) -> Option<ConnectionInfo>,
    ) -> Action {
        match key {
            // Neither changes the prompt.
            KeyPress::Stop => return Action::Suspend,
            KeyPress::Redraw => return Action::Redraw,
            _ => {}
        }
        self.message = None;
        match (mem::take(&mut self.prompt), key) {
            (_, KeyPress::End) => Action::Quit,
            (_, KeyPress::Escape) | (Prompt::Help, _) => Action::Nothing,
            (prompt, KeyPress::Up | KeyPress::Down) => {
                self.prompt = prompt;
                self.skipped = match key {
                    KeyPress::Up => self.skipped.saturating_sub(1),
                    _ => self.skipped.saturating_add(1),
                };
                Action::Nothing
            }
            (Prompt::None, key) => self.command(key),
            (Prompt::KillWhich(typed), key) => self.typing(typed, key, now, find),
            (Prompt::ConfirmKill(connection), KeyPress::Char('y' | 'Y')) => {
                ConnectionId::parse(connection.id.as_bytes()).map_or(Action::Nothing, Action::Kill)
            }
            (Prompt::ConfirmKill(_), KeyPress::Char('n' | 'N')) => Action::Nothing,
            (prompt, _) => {
                self.prompt = prompt;
                Action::Nothing
            }
        }
    }

    fn command(&mut self, key: KeyPress) -> Action {
        match key {
            KeyPress::Char('q') => Action::Quit,
            KeyPress::Char('p') => Action::Pause,
            KeyPress::Char('k') => self.ask(Prompt::KillWhich(String::new())),
            KeyPress::Char('?' | 'h') => self.ask(Prompt::Help),
            _ => Action::Nothing,
        }
    }

    fn ask(&mut self, prompt: Prompt) -> Action {
        self.prompt = prompt;
        Action::Nothing
    }

    fn typing(
        &mut self,
        mut typed: String,
        key: KeyPress,
        now: Instant,
        find: impl FnOnce(&str) -> Option<ConnectionInfo>,
    ) -> Action {
        match key {
            KeyPress::Enter => {
                match find(&typed) {
                    Some(connection) => self.prompt = Prompt::ConfirmKill(Box::new(connection)),
                    None if typed.is_empty() => {}
                    None => self.say(format!("There is no connection {typed}"), now),
                }
                return Action::Nothing;
            }
            KeyPress::Backspace => drop(typed.pop()),
            KeyPress::Char(key @ ('0'..='9' | '.')) if typed.len() < MAX_ID_CHARS => {
                typed.push(key)
            }
            _ => {}
        }
        self.prompt = Prompt::KillWhich(typed);
        Action::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses keys: `<` is Backspace, `!` Esc, `\n` Enter, `+` Down, `-` Up. The only connection is 17.3.
    fn press(keys: &mut Dialog, typed: &str) -> Action {
        let mut action = Action::Nothing;
        for key in typed.chars() {
            let key = match key {
                '<' => KeyPress::Backspace,
                '!' => KeyPress::Escape,
                '+' => KeyPress::Down,
                '-' => KeyPress::Up,
                '\n' => KeyPress::Enter,
                key => KeyPress::Char(key),
            };
            let find = |id: &str| (id == "17.3").then(|| ConnectionInfo::parse("id=17.3"));
            action = keys.press(key, Instant::now(), find);
        }
        action
    }

    #[test]
    fn a_connection_is_cut_after_confirmation_only() {
        let id = ConnectionId { slot: 17, generation: 3 };
        let mut keys = Dialog::default();
        assert_eq!(press(&mut keys, "k18<7x.3"), Action::Nothing);
        assert_eq!(keys.prompt, Prompt::KillWhich("17.3".into()));
        assert_eq!(press(&mut keys, "\nx\n"), Action::Nothing);
        assert!(matches!(&keys.prompt, Prompt::ConfirmKill(connection) if connection.id == "17.3"));
        assert_eq!(press(&mut keys, "y"), Action::Kill(id));
        for typed in ["k17.3\nny", "k17.3\n!y", "k17.3!y", "k\ny", "ky"] {
            let mut keys = Dialog::default();
            assert_eq!(press(&mut keys, typed), Action::Nothing, "{typed:?}");
        }
    }

    #[test]
    fn an_unknown_id_has_a_message() {
        let mut keys = Dialog::default();
        press(&mut keys, "k17.4\n");
        assert_eq!(
            (keys.message(), &keys.prompt),
            (Some("There is no connection 17.4"), &Prompt::None)
        );
        press(&mut keys, "x");
        assert_eq!(keys.message(), None);
        press(&mut keys, &format!("k{}", "1".repeat(99)));
        assert_eq!(keys.prompt, Prompt::KillWhich("1".repeat(MAX_ID_CHARS)));
    }

    #[test]
    fn a_message_is_shown_for_a_while() {
        let now = Instant::now();
        let mut keys = Dialog::default();
        assert!(!keys.forget(now));
        keys.say("Cut 17.3".into(), now);
        assert!(!keys.forget(now + MESSAGE_TIME - Duration::from_millis(1)));
        assert_eq!(keys.message(), Some("Cut 17.3"));
        assert!(keys.forget(now + MESSAGE_TIME));
        assert_eq!(keys.message(), None);
    }

    #[test]
    fn any_key_closes_the_help_and_does_nothing_else() {
        for typed in ["?q", "hq", "?!", "hk", "?+"] {
            let mut keys = Dialog::default();
            press(&mut keys, &typed[..1]);
            assert_eq!(keys.prompt, Prompt::Help);
            assert_eq!(press(&mut keys, &typed[1..]), Action::Nothing, "{typed}");
            assert_eq!((keys.prompt, keys.skipped), (Prompt::None, 0), "{typed}");
        }
    }

    #[test]
    fn arrows_scroll_also_during_a_prompt() {
        let mut keys = Dialog::default();
        press(&mut keys, "-+++-k17");
        assert_eq!(keys.skipped, 2);
        press(&mut keys, "+.3");
        assert_eq!((keys.skipped, keys.prompt), (3, Prompt::KillWhich("17.3".into())));
    }

    #[test]
    fn commands_are_ignored_during_a_prompt() {
        assert_eq!(press(&mut Dialog::default(), "q"), Action::Quit);
        assert_eq!(press(&mut Dialog::default(), "p"), Action::Pause);
        assert_eq!(press(&mut Dialog::default(), "kq"), Action::Nothing);
        for typed in ["", "k1", "k17.3\n"] {
            let mut keys = Dialog::default();
            press(&mut keys, typed);
            assert_eq!(keys.press(KeyPress::End, Instant::now(), |_| None), Action::Quit);
        }
    }
}
