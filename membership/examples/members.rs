//! Follows the members of a cluster in ZooKeeper, and becomes one for as long as it runs if it is given an address.
//!
//! ```text
//! cargo run -p membership --example members -- HOST:2181/drill/drillbits1 [REGISTER_AS_HOST:CONTROL_PORT [USER_PORT]]
//! ```
//!
//! Prints a line for each event. A line on its standard input is a state to go to (`ONLINE`, `QUIESCENT`, ...); its end
//! ends the program, which first takes its registration back.

use std::{env, error::Error, io};

use membership::{
    Event, Member, NodeAddress, NodeState, Provider, Registry, RegistryOptions, ZooKeeperOptions,
    ZooKeeperPath, ZooKeeperProvider,
};
use protos::coord::DrillbitEndpoint;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let path: ZooKeeperPath = args.next().unwrap_or_default().parse()?;
    let (registry, options) = if let Some(address) = args.next() {
        let user_port = args.next().map(|port| port.parse()).transpose()?;
        let local = local(&address.parse()?, user_port)?;
        let registry = Registry::of_node(local, RegistryOptions::default());
        (registry, ZooKeeperOptions::registered(path))
    } else {
        let registry = Registry::of_observer(RegistryOptions::default());
        (registry, ZooKeeperOptions::observer(path))
    };
    let provider = ZooKeeperProvider::new(options);
    let stop = CancellationToken::new();
    let (_, mut watch) = registry.watch();
    let (lines, mut input) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        io::stdin()
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| lines.send(line))
    });
    let mut run = std::pin::pin!(provider.run(&registry, &stop));
    loop {
        tokio::select! {
            ended = &mut run => break Ok(ended?),
            event = watch.next() => println!("{}", shown(&event)),
            line = input.recv(), if !stop.is_cancelled() => match line {
                Some(line) => {
                    let state = NodeState::from_str_name(line.trim());
                    registry.set_local_state(state.ok_or("no such state")?);
                }
                None => stop.cancel(),
            },
        }
    }
}

fn local(address: &NodeAddress, user_port: Option<i32>) -> Result<Member, Box<dyn Error>> {
    let endpoint = DrillbitEndpoint {
        address: Some(address.host().to_owned()),
        control_port: Some(address.control_port().into()),
        user_port,
        data_port: Some(1),
        version: Some("1.22.0".to_owned()),
        state: Some(NodeState::Online.into()),
        ..DrillbitEndpoint::default()
    };
    Ok(Member::of(endpoint.into())?)
}

fn shown(event: &Event) -> String {
    let (what, member) = match event {
        Event::Joined(member) => ("joined", member),
        Event::Changed { after, .. } => ("changed", after),
        Event::Left(member) => ("left", member),
    };
    format!(
        "{what} {} state={} version={} user={:?}",
        member.address,
        member.state.map_or("?", |state| state.as_str_name()),
        member.software_version.as_deref().unwrap_or("?"),
        member.user_port(),
    )
}
