//! What is done about nodes that go down.

use std::collections::HashMap;

use membership::{Event, NodeAddress};

use super::{
    driver::{Heartbeats, MissedEvents},
    monitor::HealthEvent,
    node::Health,
};

impl Heartbeats {
    /// Calls `node_down` for every node that is down or goes down, at once: the one way by which what runs there,
    /// or here for its queries, is failed. A node that is no member any more, or that was started again, has gone down
    /// too. A watcher that is too slow for single events is told all the same, and a node may be told of twice.
    /// `node_down` must not wait.
    ///
    /// Runs until it is dropped, best in a task of its own on the app runtime:
    ///
    /// ```no_run
    /// # use bit_control::{Foremen, Fragments, heartbeat::Heartbeats};
    /// # async fn run(heartbeats: Heartbeats, foremen: Foremen, fragments: Fragments) {
    /// heartbeats
    ///     .on_down(|node| {
    ///         foremen.node_down(node);
    ///         fragments.node_down(node);
    ///     })
    ///     .await;
    /// # }
    /// ```
    pub async fn on_down(&self, mut node_down: impl FnMut(&NodeAddress)) {
        let (_, mut members) = self.shared().registry().watch();
        let mut watch = self.watch();
        let mut downs = Downs::default();
        for node in self.nodes() {
            if node.health == Health::Down {
                node_down(&node.address);
            }
            downs.0.insert(node.address, node.counts.downs);
        }
        loop {
            tokio::select! {
                biased;
                event = watch.next() => match event {
                    Some(event) => downs.on_event(self, event, &mut node_down),
                    None => return,
                },
                event = members.next() => {
                    if let Event::Left(member) = event {
                        if self.shared().registry().member(&member.address).is_none() {
                            downs.0.remove(&member.address);
                        }
                        // Also if another one has joined since: the beats need not have seen the one that left.
                        node_down(&member.address);
                    }
                }
            }
        }
    }
}

/// How often nodes have been down, as far as was told.
#[derive(Default)]
struct Downs(HashMap<NodeAddress, u64>);

impl Downs {
    fn on_event(
        &mut self,
        heartbeats: &Heartbeats,
        event: Result<HealthEvent, MissedEvents>,
        node_down: &mut impl FnMut(&NodeAddress),
    ) {
        match event {
            Ok(event) if event.to == Health::Down => {
                *self.0.entry(event.address.clone()).or_default() += 1;
                node_down(&event.address);
            }
            Ok(_) => {}
            Err(MissedEvents { .. }) => self.catch_up(heartbeats, node_down),
        }
    }

    /// Tells of those that have been down more often than was told.
    fn catch_up(&mut self, heartbeats: &Heartbeats, node_down: &mut impl FnMut(&NodeAddress)) {
        for node in heartbeats.nodes() {
            let told = self.0.insert(node.address.clone(), node.counts.downs);
            if node.counts.downs > told.unwrap_or_default() {
                node_down(&node.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::future::poll_immediate;
    use membership::{Learned, Member, Registry, RegistryOptions};

    use super::*;
    use crate::heartbeat::BeatOptions;

    #[tokio::test]
    async fn a_node_that_left_is_down_even_if_it_has_joined_again_since() {
        let node: NodeAddress = "node2:31011".parse().unwrap();
        let registry = Registry::of_observer(RegistryOptions::default());
        registry.join(Member::at(node.clone())).unwrap();
        let learned = Learned {
            incarnation: 1,
            endpoint: Member::at(node.clone()).endpoint,
            software_version: String::new(),
            engine_version: String::new(),
            load: None,
        };
        registry.learn(&node, &learned);
        let heartbeats = Heartbeats::new(registry.clone(), BeatOptions::default()).unwrap();
        let mut told = Vec::new();
        {
            let mut watching = pin!(heartbeats.on_down(|node| told.push(node.clone())));
            assert!(poll_immediate(&mut watching).await.is_none());
            registry.leave(&node);
            registry.join(Member::at(node.clone())).unwrap();
            assert!(poll_immediate(&mut watching).await.is_none());
        }
        assert_eq!(told, [node]);
    }
}
