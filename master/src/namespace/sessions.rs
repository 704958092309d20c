//! Sessions: what their clients hold open, and the replies kept for them.
//!
//! A reply row is written in the commit of its operation and deleted when the client has acknowledged
//! it, that is when `floor` passes it. So for a (session, seq) at or above the floor there is a row if
//! and only if it was executed; below the floor it was executed or never will be.
//! Open inodes are in memory only: after a start clients say what they hold. Locks are rows: see `locks`.

use std::collections::{BTreeSet, HashMap, HashSet};

use cairn_proto::{FsError, SessionId, pb};
use prost::Message;

use super::{Namespace, SessionInfo};
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::SessionRow,
        source::{self, Source},
    },
};

/// Most replies kept for a session.
const WINDOW: usize = 4096;
/// Rows read at once.
const PAGE: usize = 1024;

#[derive(Default)]
pub(super) struct Session {
    client_name: String,
    floor: u64,
    replies: BTreeSet<u64>,
    open: HashSet<u64>,
    /// Operations below this were sent to an earlier connection or incarnation.
    replay_below: u64,
}

#[derive(Default)]
pub(super) struct Sessions {
    known: HashMap<u64, Session>,
    /// How many sessions hold an inode open.
    holders: HashMap<u64, u32>,
}

impl Sessions {
    /// Reads what is persisted; keeps what is only in memory of sessions already known.
    pub(super) fn load(&mut self, source: &mut dyn Source) -> Result<(), EngineError> {
        let mut before = std::mem::take(&mut self.known);
        let mut range = Table::Sessions.all();
        loop {
            let page = source.page(&range, PAGE)?;
            let Some((last, _)) = page.last().cloned() else { break };
            for (key, value) in page {
                let id = source::owner(&key)?;
                let row: SessionRow = source::decode(&key, value)?;
                let kept = before.remove(&id).unwrap_or_default();
                let replies = load_replies(source, id)?;
                let SessionRow { client_name, floor } = row;
                self.known.insert(id, Session { client_name, floor, replies, ..kept });
            }
            range = keys::after(&range, last);
        }
        for (_, gone) in before {
            for ino in gone.open {
                self.drop_holder(ino);
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    pub(super) fn is_held(&self, ino: u64) -> bool {
        self.holders.contains_key(&ino)
    }

    pub(super) fn hold(&mut self, id: u64, ino: u64) {
        if let Some(session) = self.known.get_mut(&id)
            && session.open.insert(ino)
        {
            *self.holders.entry(ino).or_default() += 1;
        }
    }

    /// True when it was held and nobody holds it any more.
    fn release(&mut self, id: u64, ino: u64) -> bool {
        let was_open = self.known.get_mut(&id).is_some_and(|s| s.open.remove(&ino));
        was_open && self.drop_holder(ino)
    }

    fn drop_holder(&mut self, ino: u64) -> bool {
        let Some(count) = self.holders.get_mut(&ino) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.holders.remove(&ino);
        }
        last
    }

    pub(super) fn is_replay(&self, id: u64, seq: u64) -> bool {
        self.known.get(&id).is_some_and(|s| seq < s.replay_below)
    }
}

fn load_replies(source: &mut dyn Source, id: u64) -> Result<BTreeSet<u64>, EngineError> {
    let rows = source.page(&Table::Replies.of(id), WINDOW + 1)?;
    rows.iter().map(|(key, _)| source::second(key)).collect()
}

/// What is known of a (session, seq) before it is executed.
pub(super) enum Known {
    New,
    Reply(Box<pb::Reply>),
}

impl Namespace {
    /// Makes a session. Its number was never used before; it is in the pending group.
    pub fn open_session(&mut self, client_name: &str) -> Result<SessionId, EngineError> {
        let id = self.ids.session(self.group.engine().as_ref())?;
        let session = Session { client_name: client_name.to_owned(), ..Session::default() };
        self.put_session(id, &session);
        self.sessions.known.insert(id, session);
        Ok(SessionId(id))
    }

    fn put_session(&mut self, id: u64, session: &Session) {
        let row = SessionRow { client_name: session.client_name.clone(), floor: session.floor };
        self.group.put_row(keys::session(id), &row);
    }

    /// The client of session `id` is back and holds exactly `open_inodes` open. Operations below
    /// `next_seq` that arrive from now on are replays. False when there is no such session.
    pub fn resume_session(
        &mut self,
        id: SessionId,
        next_seq: u64,
        open_inodes: &[u64],
    ) -> Result<bool, EngineError> {
        let SessionId(id) = id;
        let Some(session) = self.sessions.known.get_mut(&id) else { return Ok(false) };
        session.replay_below = next_seq;
        let wanted: HashSet<u64> = open_inodes.iter().copied().collect();
        let released: Vec<u64> = session.open.difference(&wanted).copied().collect();
        wanted.iter().for_each(|ino| self.sessions.hold(id, *ino));
        self.release(id, &released)?;
        Ok(true)
    }

    /// Ends a session: releases what it holds open, drops its replies. In the pending group.
    pub fn expire_session(&mut self, id: SessionId) -> Result<(), EngineError> {
        let SessionId(id) = id;
        let Some(session) = self.sessions.known.get(&id) else { return Ok(()) };
        let open: Vec<u64> = session.open.iter().copied().collect();
        self.drop_session_locks(id);
        self.release(id, &open)?;
        if let Some(session) = self.sessions.known.remove(&id) {
            session.replies.iter().for_each(|seq| self.group.delete(keys::reply(id, *seq)));
        }
        self.group.delete(keys::session(id));
        Ok(())
    }

    /// Session `id` no longer holds these; orphans that nobody holds are freed. Locks are held through
    /// open files.
    pub(super) fn release(&mut self, id: u64, inodes: &[u64]) -> Result<(), EngineError> {
        for &ino in inodes {
            self.drop_locks_on(id, ino);
            if self.sessions.release(id, ino) {
                self.free_if_orphan(ino)?;
            }
        }
        Ok(())
    }

    /// All sessions that were opened and have not ended, connected or not, in the order of their ids.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let info = |(id, session): (&u64, &Session)| SessionInfo {
            id: SessionId(*id),
            client_name: session.client_name.clone(),
            open_inodes: session.open.len() as u64,
        };
        let mut all: Vec<_> = self.sessions.known.iter().map(info).collect();
        all.sort_by_key(|info| info.id);
        all
    }

    /// Looks a mutation up before it is executed. The acknowledgement that a replay carries is of the
    /// time before this incarnation and says nothing about what is stored here.
    pub(super) fn recall(&mut self, id: u64, seq: u64, acked_below: u64) -> Result<Known, FsError> {
        let session = self.sessions.known.get(&id).ok_or(FsError::Stale)?;
        if seq >= session.replay_below {
            self.raise_floor(id, acked_below.min(seq));
        }
        let session = self.sessions.known.get(&id).ok_or(FsError::Stale)?;
        if seq < session.floor {
            return Err(FsError::Stale);
        }
        if !session.replies.contains(&seq) {
            return Ok(Known::New);
        }
        let key = keys::reply(id, seq);
        let reply = source::row(&mut self.group, &key)?.ok_or_else(|| {
            EngineError::Damaged(format!("the reply {seq} of session {id} is gone"))
        })?;
        Ok(Known::Reply(Box::new(reply)))
    }

    /// Keeps a reply in the commit of its operation.
    pub(super) fn remember(&mut self, id: u64, seq: u64, reply: &pb::Reply) {
        self.group.put(keys::reply(id, seq), reply.encode_to_vec().into());
        let Some(session) = self.sessions.known.get_mut(&id) else { return };
        session.replies.insert(seq);
        if session.replies.len() > WINDOW
            && let Some(oldest) = session.replies.first().copied()
        {
            self.raise_floor(id, oldest + 1);
        }
    }

    fn raise_floor(&mut self, id: u64, floor: u64) {
        let Some(mut session) = self.sessions.known.remove(&id) else { return };
        if floor > session.floor {
            session.floor = floor;
            let kept = session.replies.split_off(&floor);
            let acknowledged = std::mem::replace(&mut session.replies, kept);
            acknowledged.iter().for_each(|seq| self.group.delete(keys::reply(id, *seq)));
            self.put_session(id, &session);
        }
        self.sessions.known.insert(id, session);
    }
}
