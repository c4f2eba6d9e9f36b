//! Sends a response that rules change: the part of [`Active`] that knows of them.

use std::io::Write as _;

use super::active::{Active, Progress, ResponseError};
use super::routed::Stage;
use super::transport::Kept;
use rwsgi_protocol::chunked::LAST_CHUNK;
use rwsgi_protocol::response::{Framing, HeadWriter, Plan};
use rwsgi_routing::{Answer, Effect};

/// The plan for a response of which nothing more is sent, and whose connection closes.
const NOTHING: Plan = Plan { framing: Framing::NoBody, keep_alive: false, content_length: None, connection: None };

impl Active {
    /// Has the rules change the head, once it is there. `is_empty` says that no body will come.
    fn settle_head(&mut self, is_empty: bool) {
        let Some(routed) = &mut self.routed else { return };
        let (Stage::Before, Progress::Head(head)) = (&routed.stage, &self.progress) else { return };
        match routed.settle(head, self.exchange, is_empty) {
            Some(head) => {
                self.status = head.status();
                self.progress = if routed.visit.without_head {
                    Progress::Sending(Plan { framing: Framing::UntilClose, ..NOTHING })
                } else {
                    Progress::Head(head)
                };
            }
            None => {
                routed.stage = Stage::Dropped;
                self.progress = Progress::Sending(NOTHING);
            }
        }
    }

    /// Whether a body can be sent as it is: rules may change it.
    ///
    /// # Errors
    /// None; the result is that of what sends.
    pub(super) fn rules_leave_body(&mut self) -> Result<bool, ResponseError> {
        if self.routed.is_none() {
            return Ok(true);
        }
        self.settle_head(false);
        let Some(routed) = &self.routed else { return Ok(true) };
        Ok(matches!(routed.stage, Stage::Plain)
            && !routed.in_chunks
            && routed.visit.before_body.is_empty()
            && !routed.visit.without_head)
    }

    /// As [`Self::send`], with rules.
    pub(super) fn send_routed(
        &mut self,
        pieces: &[&[u8]],
        body_len: Option<u64>,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        self.settle_head(body_len == Some(0));
        let head_only = self.exchange.head_only;
        let Some(routed) = &mut self.routed else { return self.send_plain(pieces, body_len, own) };
        if let (Some(said), Some(got)) = (routed.said, body_len)
            && got < said
        {
            return Err(ResponseError::TooShort { said, got });
        }
        let cut;
        let (pieces, body_len) = match routed.said {
            None => (pieces, body_len),
            Some(said) => {
                cut = routed.within(pieces);
                (cut.as_slice(), body_len.map(|len| len.min(said)))
            }
        };
        match &mut routed.stage {
            Stage::Before | Stage::Plain => {
                let before = std::mem::take(&mut routed.visit.before_body);
                if before.is_empty() {
                    return self.send_settled(pieces, body_len, own);
                }
                let all: Vec<&[u8]> = std::iter::once(before.as_slice()).chain(pieces.iter().copied()).collect();
                // An empty body of an answer to HEAD was likely left out.
                let body_len = body_len.filter(|len| *len > 0 || !head_only).map(|len| len + before.len() as u64);
                self.send_settled(&all, body_len, &mut |part| own(part.checked_sub(1)?))
            }
            Stage::Gzip(encoder) => {
                let before = std::mem::take(&mut routed.visit.before_body);
                for piece in std::iter::once(before.as_slice()).chain(pieces.iter().copied()) {
                    encoder.write_all(piece)?;
                }
                match body_len {
                    Some(_) => encoder.try_finish()?,
                    None => encoder.flush()?,
                }
                let compressed = std::mem::take(encoder.get_mut());
                if body_len.is_some() {
                    routed.stage = Stage::Dropped;
                }
                self.send_settled(&[&compressed], body_len.map(|_| compressed.len() as u64), &mut |_| None)
            }
            Stage::Replaced(body) => {
                let body = std::mem::take(body);
                routed.stage = Stage::Dropped;
                let all_sent = self.send_settled(&[&body], Some(body.len() as u64), &mut |_| None)?;
                if let Progress::Sending(plan) = &mut self.progress {
                    plan.framing = Framing::NoBody;
                }
                Ok(all_sent)
            }
            Stage::Dropped => Ok(true),
        }
    }

    /// Sends what rules have done with, in chunks if they want that.
    fn send_settled(
        &mut self,
        pieces: &[&[u8]],
        body_len: Option<u64>,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        let in_chunks = self.routed.as_ref().is_some_and(|routed| routed.in_chunks);
        if !in_chunks || body_len.is_none() {
            return self.send_plain(pieces, body_len, own);
        }
        let all_sent = self.send_plain(pieces, None, own)?;
        Ok(self.transport.send(&[LAST_CHUNK], &mut |_| None)? && all_sent)
    }

    /// Sends what is left of a body that rules change, at its end.
    pub(super) fn end_routed(&mut self) -> Result<(), ResponseError> {
        let Some(routed) = &mut self.routed else { return Ok(()) };
        if let (Some(said), false) = (routed.said, routed.has_all()) {
            return Err(ResponseError::TooShort { said, got: routed.given });
        }
        if let Stage::Gzip(encoder) = &mut routed.stage {
            encoder.try_finish()?;
            let rest = std::mem::take(encoder.get_mut());
            routed.stage = Stage::Dropped;
            self.send_plain(&[&rest], None, &mut |_| None)?;
        }
        Ok(())
    }

    /// Begins the response that a rule gives, and sends it.
    pub(super) fn send_made(&mut self, answer: Answer) -> Result<(), ResponseError> {
        let made = self.routed.as_ref().and_then(|routed| routed.made_of(answer));
        let Some((head, body)) = made else {
            self.progress = Progress::Sending(NOTHING);
            return Ok(());
        };
        let mut writer = HeadWriter::new(&head.status, Vec::with_capacity(512));
        if let Ok(writer) = &mut writer
            && let Some(problem) = head.fields.iter().find_map(|(name, value)| writer.header(name, value).err())
        {
            // Without its Location or its challenge the answer would be another one.
            let (code, problem) = (400, format!("what a client sent does not fit into a rule's answer: {problem}"));
            if let Some(routed) = &mut self.routed {
                routed.visit.effects.push(Effect::Complain(problem));
            }
            return self.send_made(Answer::Page(code));
        }
        let writer = writer.unwrap_or_else(|_| HeadWriter::internal_error());
        self.status = writer.status();
        self.progress = Progress::Head(writer);
        self.send(&[&body], Some(body.len() as u64), &mut |_| None).map(drop)
    }
}
