package interop;

import java.io.File;
import java.net.InetSocketAddress;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;

/**
 * A ZooKeeper of one server, for as long as stdin stays open.
 *
 * <p>Its data is in {@code interop.home}, and its port is {@code interop.port}, or a free one if that is
 * 0. Prints one line {@code ready zookeeper=HOST:PORT} when it accepts connections.
 */
public final class ZooKeeperHarness {
  /** The shortest session is two of them. */
  private static final int TICK_MILLIS = 500;

  private ZooKeeperHarness() {}

  public static void main(String[] args) throws Exception {
    File home = new File(System.getProperty("interop.home"));
    InetSocketAddress address =
        new InetSocketAddress("127.0.0.1", Integer.getInteger("interop.port"));
    ServerCnxnFactory factory = ServerCnxnFactory.createFactory(address, 100);
    factory.startup(new ZooKeeperServer(home, home, TICK_MILLIS));
    System.out.println("ready zookeeper=127.0.0.1:" + factory.getLocalPort());
    while (System.in.read() >= 0) {
      // Only the end matters.
    }
    Runtime.getRuntime().halt(0);
  }
}
