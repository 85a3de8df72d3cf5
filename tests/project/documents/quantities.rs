//! Numbers with units: the grammar of METP §5.17 and the parser take the same.

use metp_protocol::quantity::{size, time};
use proptest::prelude::*;

use super::abnf::Grammar;
use super::{PROTOCOL, read};

proptest! {
    #![proptest_config(support::property::config(2000))]

    #[test]
    fn the_grammar_takes_the_sizes_and_times_that_the_parser_takes(
        text in "[0-9]{0,3}[.]{0,2}[0-9]{0,2}(|[bBkKmMgGtT](i[bB])?|ms|s|m|h|d|[a-zA-Z .+-]{0,3})",
    ) {
        thread_local!(static GRAMMAR: Grammar = Grammar::read(&read(PROTOCOL)));
        GRAMMAR.with(|grammar| {
            let text_ = text.as_bytes();
            prop_assert_eq!(grammar.matches("new-size", text_), size(&text).is_some());
            prop_assert_eq!(grammar.matches("new-time", text_), time(&text).is_some());
            Ok(())
        })?;
    }
}
