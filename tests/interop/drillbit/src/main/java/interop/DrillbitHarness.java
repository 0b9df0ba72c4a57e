package interop;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.apache.drill.common.config.DrillConfig;
import org.apache.drill.exec.server.Drillbit;
import org.apache.drill.exec.server.RemoteServiceSet;

/**
 * One real Drillbit, for as long as stdin stays open: in the cluster of a ZooKeeper if {@code
 * drill.exec.zk.connect} says which, else alone in its own.
 *
 * <p>Configured by system properties only: Drill's own keys, and {@code interop.home}, a directory of
 * its own for everything that it writes, deleted at the end. Prints two lines {@code ready control=HOST:PORT} and
 * {@code ready user=HOST:PORT} when it accepts connections. The end of stdin ends it, so it never outlives whoever started it.
 */
public final class DrillbitHarness {
  private DrillbitHarness() {}

  public static void main(String[] args) throws Exception {
    Path home = Path.of(System.getProperty("interop.home"));
    boolean clustered = System.getProperty("drill.exec.zk.connect") != null;
    RemoteServiceSet alone = clustered ? null : RemoteServiceSet.getLocalServiceSet();
    Drillbit drillbit = new Drillbit(DrillConfig.create(), alone);
    drillbit.run();
    System.out.println("ready control=127.0.0.1:" + drillbit.getContext().getEndpoint().getControlPort());
    System.out.println("ready user=127.0.0.1:" + drillbit.getUserPort());
    awaitEndOfInput();
    if (clustered) {
      // Others are to see it go: QUIESCENT, OFFLINE, and its registration taken back.
      drillbit.close();
    }
    delete(home);
    // Not exit(): the orderly shutdown takes seconds, and nothing here is worth keeping.
    Runtime.getRuntime().halt(0);
  }

  private static void awaitEndOfInput() throws IOException {
    while (System.in.read() >= 0) {
      // Only the end matters.
    }
  }

  private static void delete(Path root) throws IOException {
    List<Path> deepestFirst;
    try (Stream<Path> paths = Files.walk(root)) {
      deepestFirst = paths.sorted(Comparator.reverseOrder()).toList();
    }
    for (Path path : deepestFirst) {
      Files.deleteIfExists(path);
    }
  }
}
