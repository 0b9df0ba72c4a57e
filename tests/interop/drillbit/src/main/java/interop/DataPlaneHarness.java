package interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.drill.common.config.DrillConfig;
import org.apache.drill.common.scanner.ClassPathScanner;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.proto.CoordinationProtos.DrillbitEndpoint;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.proto.UserBitShared.QueryId;
import org.apache.drill.exec.rpc.control.WorkEventBus;
import org.apache.drill.exec.rpc.data.DataConnectionCreator;
import org.apache.drill.exec.rpc.data.DataTunnel;
import org.apache.drill.exec.server.BootStrapContext;
import org.apache.drill.exec.server.options.SystemOptionManager;

/**
 * Drill's own data plane without the rest of a Drillbit: its DataServer with fragments made for tests, and its
 * DataTunnels.
 *
 * <p>Prints {@code ready data=HOST:PORT}. Reads commands from stdin, a line each, and ends with it:
 *
 * <ul>
 *   <li>{@code echo MAJOR PORT}: fragment MAJOR:0 rebuilds every batch that it receives, value by value, with Drill's
 *       vectors, and sends it to the same fragment at 127.0.0.1:PORT; what that has answered is printed at the end of
 *       the batches as {@code echoed MAJOR batches=N taken=N refused=N failed=N}
 *   <li>{@code hold MAJOR}: fragment MAJOR:0 receives, but does not answer until {@code release MAJOR}
 *   <li>{@code refuse MAJOR}: fragment MAJOR:0 refuses every batch
 *   <li>{@code flood MAJOR PORT N}: sends N batches to fragment MAJOR:0 at 127.0.0.1:PORT, and prints
 *       {@code sent MAJOR N} after each and {@code flooded MAJOR batches=N taken=N refused=N failed=N} at the end
 * </ul>
 */
public final class DataPlaneHarness {
  /** The query of all fragments here. */
  static final QueryId QUERY = QueryId.newBuilder().setPart1(1).setPart2(2).build();

  private final BufferAllocator allocator;
  private final WorkEventBus fragments = new WorkEventBus();
  private final DataConnectionCreator data;
  private final Map<Integer, Receiver> receivers = new HashMap<>();

  private DataPlaneHarness() throws Exception {
    DrillConfig config = DrillConfig.create();
    BootStrapContext context =
        new BootStrapContext(
            config, SystemOptionManager.createDefaultOptionDefinitions(), ClassPathScanner.fromPrescan(config));
    allocator = context.getAllocator();
    data = new DataConnectionCreator(context, allocator, fragments, null);
  }

  public static void main(String[] args) throws Exception {
    DataPlaneHarness harness = new DataPlaneHarness();
    DrillbitEndpoint self =
        harness.data.start(
            DrillbitEndpoint.newBuilder()
                .setAddress("127.0.0.1")
                .setControlPort(Integer.getInteger("interop.port") - 1)
                .build(),
            true);
    say("ready data=127.0.0.1:" + self.getDataPort());
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      harness.run(line.split(" "));
    }
    Runtime.getRuntime().halt(0);
  }

  private void run(String[] command) {
    int major = Integer.parseInt(command[1]);
    switch (command[0]) {
      case "echo":
        receive(new Echo(handle(major), allocator, tunnel(command[2])));
        break;
      case "hold":
        receive(new Holding(handle(major), allocator));
        break;
      case "release":
        ((Holding) receivers.get(major)).release();
        break;
      case "refuse":
        receive(new Refusing(handle(major), allocator));
        break;
      case "flood":
        Flood flood = new Flood(major, Integer.parseInt(command[3]), allocator, tunnel(command[2]));
        // First, so that all that it says comes after.
        say("done " + String.join(" ", command));
        start(flood);
        return;
      default:
        throw new IllegalArgumentException(command[0]);
    }
    say("done " + String.join(" ", command));
  }

  private void receive(Receiver receiver) {
    receivers.put(receiver.getHandle().getMajorFragmentId(), receiver);
    fragments.addFragmentManager(receiver);
    if (receiver instanceof Runnable) {
      start((Runnable) receiver);
    }
  }

  private static void start(Runnable task) {
    Thread thread = new Thread(task);
    thread.setDaemon(true);
    thread.start();
  }

  private DataTunnel tunnel(String port) {
    return data.getTunnel(
        DrillbitEndpoint.newBuilder().setAddress("127.0.0.1").setDataPort(Integer.parseInt(port)).build());
  }

  static synchronized void say(String line) {
    System.out.println(line);
  }

  static FragmentHandle handle(int major) {
    return FragmentHandle.newBuilder().setQueryId(QUERY).setMajorFragmentId(major).setMinorFragmentId(0).build();
  }
}
