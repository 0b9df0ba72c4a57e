package interop;

import java.io.IOException;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.ops.FragmentContext;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.record.RawFragmentBatch;
import org.apache.drill.exec.rpc.data.IncomingDataBatch;
import org.apache.drill.exec.work.fragment.FragmentExecutor;
import org.apache.drill.exec.work.fragment.FragmentManager;

/** A fragment that Drill's DataServer gives batches to, without operators behind it. */
abstract class Receiver implements FragmentManager {
  private final FragmentHandle handle;
  final BufferAllocator allocator;

  Receiver(FragmentHandle handle, BufferAllocator allocator) {
    this.handle = handle;
    this.allocator = allocator;
  }

  /** Takes a batch, on the thread that reads the socket; an exception refuses it. */
  abstract void take(RawFragmentBatch batch) throws IOException;

  @Override
  public boolean handle(IncomingDataBatch batch) throws IOException {
    RawFragmentBatch raw = batch.newRawFragmentBatch(allocator);
    take(raw);
    // Nothing is to be started.
    return false;
  }

  @Override
  public FragmentHandle getHandle() {
    return handle;
  }

  @Override
  public FragmentExecutor getRunnable() {
    return null;
  }

  @Override
  public FragmentContext getFragmentContext() {
    return null;
  }

  @Override
  public void cancel() {}

  @Override
  public boolean isCancelled() {
    return false;
  }

  @Override
  public void unpause() {}

  @Override
  public boolean isWaiting() {
    return false;
  }

  @Override
  public void receivingFragmentFinished(FragmentHandle handle) {}
}
