package interop;

import io.netty.buffer.ByteBuf;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.drill.exec.proto.BitData.AckWithCredit;
import org.apache.drill.exec.rpc.RpcException;
import org.apache.drill.exec.rpc.RpcOutcomeListener;

/** Counts what has become of the batches of a tunnel. */
final class Answers implements RpcOutcomeListener<AckWithCredit> {
  private final AtomicInteger taken = new AtomicInteger();
  private final AtomicInteger refused = new AtomicInteger();
  private final AtomicInteger failed = new AtomicInteger();
  private int sent;

  /** Of the thread that sends. */
  void sent() {
    sent++;
  }

  @Override
  public synchronized void success(AckWithCredit ack, ByteBuf body) {
    (ack.getAllowedCredit() < 0 ? refused : taken).incrementAndGet();
    notifyAll();
  }

  @Override
  public synchronized void failed(RpcException exception) {
    failed.incrementAndGet();
    notifyAll();
  }

  @Override
  public synchronized void interrupted(InterruptedException exception) {
    failed.incrementAndGet();
    notifyAll();
  }

  /** Waits for all answers and shows them. */
  synchronized String all() throws InterruptedException {
    while (taken.get() + refused.get() + failed.get() < sent) {
      wait();
    }
    return "batches=" + sent + " taken=" + taken + " refused=" + refused + " failed=" + failed;
  }
}
