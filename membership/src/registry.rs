//! The members, in one place: providers and beats change them, everybody else reads and watches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;

use crate::{
    address::NodeAddress,
    member::{Learned, Load, Member, NodeState},
};

mod watch;

use watch::Untold;
pub use watch::{Event, Watch};

/// Limits of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Members at a time, this node included; further ones are refused. Default 1,024. A member takes about 1 KiB, and
    /// as much again for each watcher that does not keep up.
    pub members_max: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { members_max: 1024 }
    }
}

/// There are as many members as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{refused} nodes are left out: the registry holds at most {max} members")]
pub struct RegistryFull {
    /// How many were refused.
    pub refused: usize,
    /// [`RegistryOptions::members_max`].
    pub max: usize,
}

/// Who is in the cluster. Clones are the same.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    local: Option<NodeAddress>,
    members_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<NodeAddress, Entry>,
    /// What each watcher has not been told yet.
    watchers: HashMap<u64, Untold>,
    watchers_ever: u64,
}

#[derive(Debug)]
struct Entry {
    member: Arc<Member>,
    /// The endpoint came from the provider, not from a beat.
    endpoint_given: bool,
}

impl Registry {
    /// The registry of a node, which is its first member and never leaves.
    #[must_use]
    pub fn of_node(local: Member, options: RegistryOptions) -> Self {
        let registry = Self::new(Some(local.address.clone()), options);
        let entry = Entry::given(local);
        registry.lock().put(entry);
        registry
    }

    /// The registry of a program that is no node itself.
    #[must_use]
    pub fn of_observer(options: RegistryOptions) -> Self {
        Self::new(None, options)
    }

    fn new(local: Option<NodeAddress>, options: RegistryOptions) -> Self {
        Self(Arc::new(Shared {
            local,
            members_max: options.members_max.max(1),
            state: Mutex::default(),
        }))
    }

    /// A provider names a node. What is known of it already is kept where the provider does not say otherwise. This
    /// node is not changed so.
    ///
    /// # Errors
    /// It is new, and there are as many members as there may be.
    pub fn join(&self, member: Member) -> Result<(), RegistryFull> {
        self.join_all([member])
    }

    /// The provider no longer names a node. This node stays.
    pub fn leave(&self, address: &NodeAddress) {
        if self.0.local.as_ref() != Some(address) {
            self.lock().remove(address);
        }
    }

    /// A provider names all nodes that there are; the others have left.
    ///
    /// # Errors
    /// There are more than there may be. The first ones that fit are members, those before all that are already.
    pub fn replace(&self, members: Vec<Member>) -> Result<(), RegistryFull> {
        let named: BTreeSet<_> = members.iter().map(|member| &member.address).collect();
        for gone in self.addresses_without(&named) {
            self.leave(&gone);
        }
        self.join_all(members)
    }

    /// A node has said this of itself. False if it is no member: who beats does not join by that.
    pub fn learn(&self, address: &NodeAddress, learned: &Learned) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.members.get_mut(address) else {
            return false;
        };
        if entry.member.knows(learned, entry.endpoint_given) {
            entry.note_load(learned.load);
            return true;
        }
        let mut member = Member::clone(&entry.member);
        member.learn(learned, entry.endpoint_given);
        let endpoint_given = entry.endpoint_given;
        state.put(Entry {
            member: Arc::new(member),
            endpoint_given,
        });
        true
    }

    /// This node has come to another state.
    pub fn set_local_state(&self, to: NodeState) {
        self.update_local(|local| local.set_state(to));
    }

    /// What this node is busy with.
    pub fn set_local_load(&self, load: Load) {
        self.update_local(|local| local.load = Some(load));
    }

    /// This node, if the program is one.
    #[must_use]
    pub fn local(&self) -> Option<Arc<Member>> {
        self.member(self.0.local.as_ref()?)
    }

    /// One of them.
    #[must_use]
    pub fn member(&self, address: &NodeAddress) -> Option<Arc<Member>> {
        let state = self.lock();
        let entry = state.members.get(address)?;
        Some(Arc::clone(&entry.member))
    }

    /// All of them by address, this node included.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.lock().members()
    }

    /// All of them as of now, and what changes from now on.
    #[must_use]
    pub fn watch(&self) -> (Vec<Arc<Member>>, Watch) {
        Watch::new(self.clone())
    }

    fn join_all(&self, members: impl IntoIterator<Item = Member>) -> Result<(), RegistryFull> {
        let max = self.0.members_max;
        let mut refused = 0;
        for member in members {
            if self.0.local.as_ref() == Some(&member.address) {
                continue;
            }
            let mut state = self.lock();
            match state.members.get(&member.address) {
                Some(known) => {
                    let entry = Entry::given_again(member, known);
                    state.put(entry);
                }
                None if state.members.len() < max => state.put(Entry::given(member)),
                None => refused += 1,
            }
        }
        match refused {
            0 => Ok(()),
            refused => Err(RegistryFull { refused, max }),
        }
    }

    fn addresses_without(&self, named: &BTreeSet<&NodeAddress>) -> Vec<NodeAddress> {
        let state = self.lock();
        let all = state.members.keys();
        all.filter(|address| !named.contains(address))
            .cloned()
            .collect()
    }

    fn update_local(&self, change: impl FnOnce(&mut Member)) {
        let Some(address) = &self.0.local else { return };
        let mut state = self.lock();
        let Some(entry) = state.members.get(address) else {
            return;
        };
        let mut member = Member::clone(&entry.member);
        change(&mut member);
        state.put(Entry::given(member));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A member is new, or has changed.
    fn put(&mut self, entry: Entry) {
        let address = entry.member.address.clone();
        let before = self.members.get(&address);
        let news = before.is_none_or(|before| entry.member.differs_from(&before.member));
        self.members.insert(address.clone(), entry);
        if news {
            for watcher in self.watchers.values_mut() {
                watcher.on_change(&address);
            }
        }
    }

    fn remove(&mut self, address: &NodeAddress) {
        if self.members.remove(address).is_some() {
            for watcher in self.watchers.values_mut() {
                watcher.on_leave(address);
            }
        }
    }

    fn members(&self) -> Vec<Arc<Member>> {
        let entries = self.members.values();
        entries.map(|entry| Arc::clone(&entry.member)).collect()
    }
}

impl Entry {
    fn given(member: Member) -> Self {
        Self {
            endpoint_given: member.endpoint.is_complete(),
            member: Arc::new(member),
        }
    }

    fn given_again(member: Member, known: &Self) -> Self {
        Self {
            endpoint_given: member.endpoint.is_complete() || known.endpoint_given,
            member: Arc::new(member.merged_into(&known.member)),
        }
    }

    fn note_load(&mut self, load: Option<Load>) {
        if self.member.load != load {
            Arc::make_mut(&mut self.member).load = load;
        }
    }
}

#[cfg(test)]
mod tests;
