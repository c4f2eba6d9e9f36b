//! Whatever numbers a server sends, every part of the screen is drawn.

use proptest::prelude::*;

use super::{picture, setup};
use crate::model::Pool;
use crate::source::hostile::polls;
use crate::view::Screen;
use crate::view::keys::Action;

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]
    #[test]
    fn any_document_is_drawn(polls in polls()) {
        let mut screen = Screen::new(vec![Pool::new("a".into(), None)], setup());
        for poll in polls {
            screen.ingest(poll);
        }
        for tab in 0..6 {
            for look in [&[][..], &[Action::Cores], &[Action::Down, Action::Detail], &[Action::Alerts], &[Action::Generations], &[Action::Chart(4)]] {
                screen.selection = crate::view::selection::Selection { tab, ..Default::default() };
                screen.table.selected = None;
                for action in look {
                    screen.act(*action);
                }
                for size in [(40, 12), (120, 40)] {
                    picture(&mut screen, size);
                }
            }
        }
    }
}
