package interop;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.DrillBuf;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.drill.common.config.DrillConfig;
import org.apache.drill.common.scanner.ClassPathScanner;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.proto.BitControl.FinishedReceiver;
import org.apache.drill.exec.proto.BitControl.FragmentStatus;
import org.apache.drill.exec.proto.BitControl.InitializeFragments;
import org.apache.drill.exec.proto.BitControl.PlanFragment;
import org.apache.drill.exec.proto.CoordinationProtos.DrillbitEndpoint;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.proto.GeneralRPCProtos.Ack;
import org.apache.drill.exec.proto.UserBitShared.FragmentState;
import org.apache.drill.exec.proto.UserBitShared.MinorFragmentProfile;
import org.apache.drill.exec.proto.UserBitShared.QueryId;
import org.apache.drill.exec.rpc.RpcException;
import org.apache.drill.exec.rpc.RpcOutcomeListener;
import org.apache.drill.exec.rpc.control.ControlTunnel;
import org.apache.drill.exec.rpc.control.Controller;
import org.apache.drill.exec.rpc.control.ControllerImpl;
import org.apache.drill.exec.server.BootStrapContext;
import org.apache.drill.exec.server.options.SystemOptionManager;
import org.apache.drill.exec.work.batch.ControlMessageHandler;

/**
 * Drill's own control plane without the rest of a Drillbit: its ControlServer and its ControlTunnels. Of what it may be
 * asked it serves custom messages of type 7 only, which it answers with both halves of the id swapped and the body as it
 * came.
 *
 * <p>Prints {@code ready control=HOST:PORT}. Reads commands from stdin, a line each, and ends with it:
 *
 * <ul>
 *   <li>{@code call PORT}: makes every call to the node at 127.0.0.1:PORT, and prints {@code NAME ok=BOOLEAN},
 *       {@code NAME failed TEXT}, or what else is the answer
 * </ul>
 */
public final class ControlPlaneHarness {
  private static final int CUSTOM = 7;

  private final BufferAllocator allocator;
  private final ControllerImpl controller;

  private ControlPlaneHarness() throws Exception {
    DrillConfig config = DrillConfig.create();
    BootStrapContext context =
        new BootStrapContext(
            config, SystemOptionManager.createDefaultOptionDefinitions(), ClassPathScanner.fromPrescan(config));
    allocator = context.getAllocator();
    controller = new ControllerImpl(context, allocator, new ControlMessageHandler(null));
  }

  public static void main(String[] args) throws Exception {
    ControlPlaneHarness harness = new ControlPlaneHarness();
    DrillbitEndpoint self =
        harness.controller.start(
            DrillbitEndpoint.newBuilder()
                .setAddress("127.0.0.1")
                .setControlPort(Integer.getInteger("interop.port"))
                .build(),
            true);
    harness.controller.registerCustomHandler(CUSTOM, harness::swap, QueryId.PARSER);
    say("ready control=127.0.0.1:" + self.getControlPort());
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      harness.call(Integer.parseInt(line.split(" ")[1]));
      say("done " + line);
    }
    Runtime.getRuntime().halt(0);
  }

  private void call(int port) throws Exception {
    ControlTunnel tunnel =
        controller.getTunnel(DrillbitEndpoint.newBuilder().setAddress("127.0.0.1").setControlPort(port).build());
    FragmentHandle one = handle(1);
    FragmentHandle two = handle(2);
    Outcome nothing = new Outcome();
    tunnel.sendFragments(nothing, InitializeFragments.getDefaultInstance());
    say("initialize nothing " + nothing.text());
    Outcome plan = new Outcome();
    PlanFragment fragment = PlanFragment.newBuilder().setHandle(one).setFragmentJson("{ \"pop\" : \"screen\" }").build();
    tunnel.sendFragments(plan, InitializeFragments.newBuilder().addFragment(fragment).build());
    say("initialize " + plan.text());
    Outcome cancel = new Outcome();
    tunnel.cancelFragment(cancel, one);
    say("cancel " + cancel.text());
    Outcome unpause = new Outcome();
    tunnel.unpauseFragment(unpause, one);
    say("unpause " + unpause.text());
    Outcome finished = new Outcome();
    tunnel.informReceiverFinished(finished, FinishedReceiver.newBuilder().setReceiver(one).setSender(two).build());
    say("finished " + finished.text());
    MinorFragmentProfile profile = MinorFragmentProfile.newBuilder().setState(FragmentState.RUNNING).build();
    FragmentStatus status = FragmentStatus.newBuilder().setHandle(one).setProfile(profile).build();
    say("status ok=" + tunnel.sendFragmentStatus(status).checkedGet().getOk());
    say("cancel query ok=" + tunnel.requestCancelQuery(one.getQueryId()).checkedGet().getOk());
    say("profile of " + tunnel.requestQueryProfile(one.getQueryId()).checkedGet().getId().getPart1());
    try {
      tunnel.requestQueryProfile(QueryId.newBuilder().setPart1(9).setPart2(9).build()).checkedGet();
    } catch (RpcException e) {
      say("profile failed " + firstLine(e));
    }
    custom(tunnel);
  }

  private void custom(ControlTunnel tunnel) throws Exception {
    DrillBuf body = allocator.buffer(5);
    body.writeBytes("hello".getBytes(StandardCharsets.UTF_8));
    QueryId request = QueryId.newBuilder().setPart1(3).setPart2(4).build();
    ControlTunnel.CustomTunnel<QueryId, QueryId> ours = tunnel.getCustomTunnel(CUSTOM, QueryId.class, QueryId.PARSER);
    ControlTunnel.CustomFuture<QueryId> answer = ours.send(request, body);
    QueryId swapped = answer.get(60, TimeUnit.SECONDS);
    DrillBuf back = answer.getBuffer();
    String text = back.toString(0, (int) back.readableBytes(), StandardCharsets.UTF_8);
    back.release();
    say("custom " + swapped.getPart1() + " " + swapped.getPart2() + " " + text);
    try {
      tunnel.getCustomTunnel(99, QueryId.class, QueryId.PARSER).send(request).get(60, TimeUnit.SECONDS);
    } catch (Exception e) {
      say("custom failed " + firstLine(e));
    }
  }

  private Controller.CustomResponse<QueryId> swap(QueryId request, DrillBuf body) {
    QueryId swapped = QueryId.newBuilder().setPart1(request.getPart2()).setPart2(request.getPart1()).build();
    ByteBuf[] bodies = new ByteBuf[0];
    if (body != null && body.readableBytes() > 0) {
      DrillBuf copy = allocator.buffer(body.readableBytes());
      copy.writeBytes(body, body.readerIndex(), body.readableBytes());
      bodies = new ByteBuf[] {copy};
    }
    ByteBuf[] answer = bodies;
    return new Controller.CustomResponse<QueryId>() {
      @Override
      public QueryId getMessage() {
        return swapped;
      }

      @Override
      public ByteBuf[] getBodies() {
        return answer;
      }
    };
  }

  private static String firstLine(Throwable failure) {
    return String.valueOf(failure.getMessage()).split("\n")[0];
  }

  private static FragmentHandle handle(int major) {
    QueryId query = QueryId.newBuilder().setPart1(1).setPart2(2).build();
    return FragmentHandle.newBuilder().setQueryId(query).setMajorFragmentId(major).setMinorFragmentId(0).build();
  }

  static synchronized void say(String line) {
    System.out.println(line);
  }

  /** The answer to one call. */
  private static final class Outcome implements RpcOutcomeListener<Ack> {
    private final CompletableFuture<String> text = new CompletableFuture<>();

    String text() throws Exception {
      return text.get(60, TimeUnit.SECONDS);
    }

    @Override
    public void success(Ack ack, ByteBuf body) {
      text.complete("ok=" + ack.getOk());
    }

    @Override
    public void failed(RpcException exception) {
      text.complete("failed " + firstLine(exception));
    }

    @Override
    public void interrupted(InterruptedException exception) {
      text.complete("interrupted");
    }
  }
}
