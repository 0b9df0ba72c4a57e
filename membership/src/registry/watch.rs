//! A watcher: what it has been told, and what not yet.
//!
//! Per watcher there is one list of addresses at which something has changed since it was last told of them, and what
//! it was last told. An event is made when it is read, of the difference between that and how things are then: so a
//! watcher that is slow sees the newest, never a backlog, and what it holds is bounded by the number of members.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use tokio::sync::Notify;

use super::{Registry, State};
use crate::{address::NodeAddress, member::Member};

/// What has happened to a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It was none before.
    Joined(Arc<Member>),
    /// Something is known now that was not, or has changed.
    Changed {
        /// As the watcher was last told.
        before: Arc<Member>,
        /// As it is now.
        after: Arc<Member>,
    },
    /// It is none any more. A node that was started again, seen by its incarnation, has left and joined; so has one that
    /// left and joined before the watcher looked, if its process was known.
    Left(Arc<Member>),
}

impl Event {
    /// Whose it is.
    #[must_use]
    pub fn address(&self) -> &NodeAddress {
        match self {
            Self::Joined(member) | Self::Left(member) => &member.address,
            Self::Changed { after, .. } => &after.address,
        }
    }
}

/// Events of a [`Registry`], each once. Those of one member are in order and fit together: what has joined may change
/// and leave. Members come in the order in which the first thing happened to them that the watcher was not told of yet.
pub struct Watch {
    registry: Registry,
    id: u64,
    news: Arc<Notify>,
}

impl Watch {
    pub(super) fn new(registry: Registry) -> (Vec<Arc<Member>>, Self) {
        let news = Arc::default();
        let mut state = registry.lock();
        let members = state.members();
        let id = state.watchers_ever;
        state.watchers_ever += 1;
        state.watchers.insert(id, Untold::new(&members, &news));
        drop(state);
        (members, Self { registry, id, news })
    }

    /// The next event.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.news.notified().await;
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        let mut state = self.registry.lock();
        let State {
            members, watchers, ..
        } = &mut *state;
        let untold = watchers.get_mut(&self.id)?;
        untold.next(|address| Some(Arc::clone(&members.get(address)?.member)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.registry.lock().watchers.remove(&self.id);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What one watcher has not been told yet.
#[derive(Debug)]
pub(super) struct Untold {
    /// Where something has changed: each address once, in the order of the first change.
    changed: VecDeque<NodeAddress>,
    /// What the watcher was told last.
    told: HashMap<NodeAddress, Arc<Member>>,
    news: Arc<Notify>,
}

impl Untold {
    fn new(members: &[Arc<Member>], news: &Arc<Notify>) -> Self {
        let told = members
            .iter()
            .map(|member| (member.address.clone(), Arc::clone(member)));
        Self {
            changed: VecDeque::new(),
            told: told.collect(),
            news: Arc::clone(news),
        }
    }

    /// A member is new, or has changed.
    pub(super) fn on_change(&mut self, address: &NodeAddress) {
        if !self.changed.contains(address) {
            self.changed.push_back(address.clone());
        }
        self.news.notify_one();
    }

    /// A member has left.
    pub(super) fn on_leave(&mut self, address: &NodeAddress) {
        if self.told.contains_key(address) {
            self.on_change(address);
        } else {
            // It came and went untold: kept, such addresses would add up.
            self.changed.retain(|changed| changed != address);
        }
    }

    fn next(&mut self, member: impl Fn(&NodeAddress) -> Option<Arc<Member>>) -> Option<Event> {
        loop {
            let address = self.changed.pop_front()?;
            if let Some(event) = self.difference(&address, member(&address)) {
                return Some(event);
            }
        }
    }

    /// From what was told last to what is `now`.
    fn difference(&mut self, address: &NodeAddress, now: Option<Arc<Member>>) -> Option<Event> {
        let Some(after) = now else {
            return self.told.remove(address).map(Event::Left);
        };
        let Some(before) = self.told.get(address).cloned() else {
            self.told.insert(address.clone(), Arc::clone(&after));
            return Some(Event::Joined(after));
        };
        if after.is_restart_of(&before) {
            // That it has joined is told next.
            self.changed.push_front(address.clone());
            self.told.remove(address);
            return Some(Event::Left(before));
        }
        if !after.differs_from(&before) {
            return None;
        }
        self.told.insert(address.clone(), Arc::clone(&after));
        Some(Event::Changed { before, after })
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.changed.len() + self.told.len()
    }
}
