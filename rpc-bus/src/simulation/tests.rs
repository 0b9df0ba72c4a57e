use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const BYTES: usize = 20_000;

/// Both ends of a connection from host 1 to host 2.
async fn connected(network: &SimulatedNetwork) -> (SimulatedStream, SimulatedStream) {
    let (one, two) = (network.host(ONE), network.host(TWO));
    let listener = two.listen(SocketAddr::new(TWO, 0)).unwrap();
    let addr = listener.local_addr();
    let (ours, (theirs, peer)) = tokio::join!(one.connect(addr), listener.accept());
    let ours = ours.unwrap();
    assert_eq!((ours.peer_addr(), ours.local_addr()), (addr, peer));
    (ours, theirs)
}

fn numbers() -> Vec<u8> {
    (0..BYTES).map(|byte| byte.to_le_bytes()[0]).collect()
}

/// What arrives of numbers that are written, and how it ends.
async fn sent(network: &SimulatedNetwork, prepare: impl FnOnce()) -> (Vec<u8>, io::Result<usize>) {
    let (mut ours, mut theirs) = connected(network).await;
    prepare();
    let mut received = Vec::new();
    let writing = async {
        let written = ours.write_all(&numbers()).await;
        // Whoever has been cut off learns of that here.
        drop(written.and(ours.shutdown().await));
        ours
    };
    let (ours, end) = tokio::join!(writing, theirs.read_to_end(&mut received));
    drop((ours, theirs));
    assert_eq!(network.connections(), 0);
    (received, end)
}

fn ragged() -> Path {
    Path {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(50),
        bytes_per_s: Some(100_000),
        buffer_bytes: 3_000,
        piece_bytes_max: Some(1_000),
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_however_ragged_and_narrow_the_path_is() {
    let network = SimulatedNetwork::new(1);
    network.set_path(ONE, TWO, ragged());
    let began = link::now();
    let (received, end) = sent(&network, || {}).await;
    assert!(received == numbers() && end.is_ok());
    let took = link::now() - began;
    assert!(took > Duration::from_millis(200), "{took:?}");
}

#[test]
fn one_seed_brings_one_schedule() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let network = SimulatedNetwork::new(seed);
            network.set_path(ONE, TWO, ragged());
            sent(&network, || {}).await.1.unwrap();
            network.trace()
        })
    };
    let traces: Vec<_> = (0..4).map(run).collect();
    assert_eq!(traces, (0..4).map(run).collect::<Vec<_>>());
    assert!(traces.windows(2).all(|pair| pair[0] != pair[1]));
}

#[tokio::test(start_paused = true)]
async fn nothing_arrives_while_a_path_is_stalled() {
    let (network, began) = (SimulatedNetwork::new(1), link::now());
    let stall = || network.stall(ONE, TWO, Duration::from_secs(7));
    let (received, end) = sent(&network, stall).await;
    assert!(received == numbers() && end.is_ok());
    assert!(link::now() - began >= Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_heals_carries_everything_at_once() {
    let (network, began) = (SimulatedNetwork::new(1), link::now());
    let heal = || {
        network.stall(ONE, TWO, Duration::from_secs(7));
        network.fault(ONE, TWO, 0, Fault::FlipBit(0));
        network.heal();
    };
    let (received, end) = sent(&network, heal).await;
    assert!(received == numbers() && end.is_ok());
    assert!(link::now() - began < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn one_bit_is_flipped_where_it_is_asked_for() {
    let network = SimulatedNetwork::new(1);
    let flip = || network.fault(ONE, TWO, 1_234, Fault::FlipBit(3));
    let (received, end) = sent(&network, flip).await;
    let mut expected = numbers();
    expected[1_234] ^= 8;
    assert!(received == expected && end.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_connection_where_it_is_asked_for() {
    for end in [End::Fin, End::Reset] {
        let network = SimulatedNetwork::new(1);
        let cut = || network.fault(ONE, TWO, 1_234, Fault::Cut(end));
        let (received, ended) = sent(&network, cut).await;
        assert_eq!(received, numbers()[..received.len()]);
        match end {
            End::Fin => assert!(received.len() == 1_234 && ended.is_ok()),
            End::Reset => assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_peers_of_a_process_that_dies_are_told_and_those_of_a_host_that_is_off_are_not() {
    for death in [Death::Process, Death::Power] {
        let network = SimulatedNetwork::new(1);
        let (mut ours, theirs) = connected(&network).await;
        network.kill(TWO, death);
        drop(theirs);
        let mut byte = [0];
        let told = tokio::time::timeout(Duration::from_mins(10), ours.read(&mut byte)).await;
        match death {
            Death::Process => {
                assert_eq!(
                    told.unwrap().unwrap_err().kind(),
                    io::ErrorKind::ConnectionReset
                );
            }
            Death::Power => {
                assert!(told.is_err(), "silence");
                let _lives_again = network.host(TWO);
                ours.write_all(b"?").await.unwrap();
                let told = ours.read(&mut byte).await;
                assert_eq!(told.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            }
        }
        drop(ours);
        assert_eq!(network.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_without_a_listener_refuses_and_one_that_is_dead_is_silent() {
    let network = SimulatedNetwork::new(1);
    let (one, _two) = (network.host(ONE), network.host(TWO));
    let nobody = SocketAddr::new(TWO, 1);
    let refused = one.connect(nobody).await.err().map(|error| error.kind());
    assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
    network.kill(TWO, Death::Power);
    let connecting = tokio::time::timeout(Duration::from_mins(10), one.connect(nobody));
    assert!(connecting.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_former_life_of_a_host_takes_no_port_from_a_later_one() {
    let network = SimulatedNetwork::new(1);
    let at = SocketAddr::new(ONE, 7);
    let before = network.host(ONE).listen(at).unwrap();
    network.kill(ONE, Death::Process);
    let host = network.host(ONE);
    let _now = host.listen(at).unwrap();
    drop(before);
    let taken = host.listen(at).err().map(|error| error.kind());
    assert_eq!(taken, Some(io::ErrorKind::AddrInUse));
}
