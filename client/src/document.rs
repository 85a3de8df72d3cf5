//! The answers of a call as one JSON document, of the form described in `client(1)`. It is written as the
//! answers come, so that a list of any length takes no memory. What is open when the call breaks off is closed,
//! so that it is a document in any case.

use std::io::Write;

use metp_protocol::split_cause;
use metp_protocol::text::Escaped;
use serde_json::{Value, json};

use crate::answer::{Answer, AnswerKind};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::session::Server;
use crate::{json, render};

/// A document in the course of being written.
pub struct Document<W> {
    out: W,
    /// Whether the next entry follows another one.
    followed: bool,
    list: Option<List>,
}

/// A list in the course of being written.
struct List {
    /// Whether the next row follows another one.
    followed: bool,
    /// The closing brackets.
    end: &'static str,
}

impl<W: Write> Document<W> {
    /// Begins a document with the names of the server and the account.
    ///
    /// # Errors
    /// [`Failure::Output`], as from every method.
    pub fn new(mut out: W, server: &Server) -> Result<Self, Failure> {
        let user = Value::from(Escaped(&server.name).to_string());
        let server = Value::from(render::endpoint(&server.host, server.port));
        write(
            &mut out,
            &format!("{{\n  \"server\": {server},\n  \"user\": {user},\n  \"results\": ["),
        )?;
        Ok(Document { out, followed: false, list: None })
    }

    /// Begins the entry of a command whose answer is a list. `text` is what followed the 200.
    pub fn begin_list(&mut self, invocation: &Invocation, text: &str) -> Result<(), Failure> {
        self.begin(invocation)?;
        let (begin, end) = match invocation.line {
            Some(_) => (format!("{{ \"text\": {}, \"lines\": [", Value::from(text)), "] }"),
            None => ("[".to_owned(), "]"),
        };
        self.list = Some(List { followed: false, end });
        write(&mut self.out, &format!(",\n      \"result\": {begin}"))
    }

    /// Adds a row to the list: a line of the answer, made printable.
    pub fn row(
        &mut self,
        invocation: &Invocation,
        kind: AnswerKind,
        line: &str,
    ) -> Result<(), Failure> {
        let row = if invocation.line.is_some() { line.into() } else { json::row(kind, line) };
        let followed =
            self.list.as_mut().is_some_and(|list| std::mem::replace(&mut list.followed, true));
        let between = if followed { "," } else { "" };
        write(&mut self.out, &format!("{between}\n        {row}"))
    }

    /// Ends the entry of a list that has ended or broken off; or writes the whole entry of another answer.
    pub fn add(
        &mut self,
        invocation: &Invocation,
        answer: &Result<Answer, Failure>,
    ) -> Result<(), Failure> {
        if let Some(List { followed, end }) = self.list.take() {
            let line = if followed { "\n      " } else { "" };
            write(&mut self.out, &format!("{line}{end}"))?;
        } else {
            self.begin(invocation)?;
            if let Ok(answer) = answer {
                let result = match invocation.line {
                    Some(_) => json!({ "text": answer.text, "lines": answer.lines }),
                    None => json::result(answer),
                };
                self.member("result", &result)?;
            }
        }
        self.member("ok", &answer.is_ok().into())?;
        if let Err(failure) = answer {
            self.member("error", &error(failure))?;
        }
        write(&mut self.out, "\n    }")
    }

    /// Ends the document, with the failure that ended the call early if there is one.
    pub fn end(mut self, failure: Option<&Failure>) -> Result<(), Failure> {
        write(&mut self.out, if self.followed { "\n  ]" } else { "]" })?;
        if let Some(failure) = failure {
            write(&mut self.out, &format!(",\n  \"error\": {}", indented(&error(failure), 2)))?;
        }
        write(&mut self.out, "\n}\n")?;
        self.out.flush().map_err(Failure::Output)
    }

    fn begin(&mut self, invocation: &Invocation) -> Result<(), Failure> {
        let between = if std::mem::replace(&mut self.followed, true) { "," } else { "" };
        let option = Value::from(invocation.option.long);
        write(&mut self.out, &format!("{between}\n    {{\n      \"option\": {option}"))?;
        self.member("command", &invocation.shown().into())
    }

    fn member(&mut self, key: &str, value: &Value) -> Result<(), Failure> {
        write(&mut self.out, &format!(",\n      \"{key}\": {}", indented(value, 6)))
    }
}

fn write(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).map_err(Failure::Output)
}

/// Formats a value over several lines that are indented by `columns`. Strings of JSON hold no line end.
fn indented(value: &Value, columns: usize) -> String {
    format!("{value:#}").replace('\n', &format!("\n{:columns$}", ""))
}

fn error(failure: &Failure) -> Value {
    let message = failure.to_string();
    let cause = split_cause(&message).map(|(word, _)| word);
    let cause = cause.filter(|_| matches!(failure, Failure::Refused(_)));
    json!({ "message": message, "cause": cause, "exit": failure.exit_code() })
}

#[cfg(test)]
mod tests {
    use common::usage::OptionName;
    use metp_protocol::Command;

    use super::*;
    use crate::output::Output;

    fn invocation(command: Command, line: Option<&[u8]>) -> Invocation {
        let option = OptionName { short: "", long: "--x" };
        Invocation { option, line: line.map(<[u8]>::to_vec), command: Some(command), import: None }
    }

    fn written(
        failure: Option<&Failure>,
        fill: impl FnOnce(&mut Document<&mut Vec<u8>>) -> Result<(), Failure>,
    ) -> String {
        let server = Server {
            host: "::1".to_owned(),
            port: 8080,
            name: b"ad min".to_vec(),
            password: b"secret".to_vec(),
            wait: None,
            output: Output::default(),
        };
        let mut text = Vec::new();
        let mut document = Document::new(&mut text, &server).unwrap();
        fill(&mut document).unwrap();
        document.end(failure).unwrap();
        let text = String::from_utf8(text).unwrap();
        serde_json::from_str::<Value>(&text).expect("it is JSON");
        text
    }

    #[test]
    fn a_document_is_written_as_answers_come() {
        let kill = invocation(Command::KillUser(b"x".to_vec()), None);
        let users = invocation(Command::Users, None);
        let raw = invocation(Command::Users, Some(b"USERS"));
        let answer =
            |kind, text: &str| Ok(Answer { kind, text: text.to_owned(), lines: Vec::new() });
        let text = written(None, |document| {
            document.add(&kill, &answer(AnswerKind::Killed, "OK killed=1"))?;
            document.begin_list(&users, "OK")?;
            document.row(&users, AnswerKind::Users, "a user")?;
            document.row(&users, AnswerKind::Users, "b admin")?;
            document.add(&users, &answer(AnswerKind::Users, ""))?;
            document.begin_list(&raw, "OK")?;
            document.row(&raw, AnswerKind::Users, "a user")?;
            document.add(&raw, &answer(AnswerKind::Users, ""))
        });
        assert_eq!(
            text,
            r#"{
  "server": "[::1]:8080",
  "user": "ad\\x20min",
  "results": [
    {
      "option": "--x",
      "command": "KILL USER x",
      "result": {
        "killed": 1
      },
      "ok": true
    },
    {
      "option": "--x",
      "command": "USERS",
      "result": [
        {"user":"a","role":"user"},
        {"user":"b","role":"admin"}
      ],
      "ok": true
    },
    {
      "option": "--x",
      "command": "USERS",
      "result": { "text": "OK", "lines": [
        "a user"
      ] },
      "ok": true
    }
  ]
}
"#
        );
    }

    #[test]
    fn a_document_is_complete_when_the_session_ends_early() {
        let failure = || Failure::Broken("The server closed the connection".to_owned());
        let users = invocation(Command::Users, None);
        let text = written(Some(&failure()), |document| {
            document.begin_list(&users, "OK")?;
            document.row(&users, AnswerKind::Users, "a user")?;
            document.add(&users, &Err(failure()))
        });
        let value: Value = serde_json::from_str(&text).unwrap();
        let result = &value["results"][0];
        assert_eq!(
            (result["result"].as_array().map(Vec::len), &result["ok"]),
            (Some(1), &false.into())
        );
        assert_eq!(result["error"]["exit"], value["error"]["exit"]);
        assert_eq!(value["error"]["exit"], 70);
        let none = written(Some(&failure()), |_| Ok(()));
        assert!(none.contains("\"results\": [],\n  \"error\": {\n    \"message\""), "{none}");
    }

    #[test]
    fn empty_lists_and_refusals() {
        let users = invocation(Command::Users, None);
        let text = written(None, |document| {
            document.begin_list(&users, "OK")?;
            document.add(
                &users,
                &Ok(Answer { kind: AnswerKind::Users, text: String::new(), lines: Vec::new() }),
            )?;
            document.add(&users, &Err(Failure::Refused("Bad Request [SELF] no".to_owned())))
        });
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["results"][0]["result"], json!([]));
        assert_eq!(
            value["results"][1],
            json!({"option": "--x", "command": "USERS", "ok": false,
                   "error": {"message": "Bad Request [SELF] no", "cause": "SELF", "exit": 65}})
        );
    }
}
