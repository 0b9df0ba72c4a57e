package interop;

import java.util.ArrayList;
import java.util.List;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.record.RawFragmentBatch;

/** Receives, and says so, but answers only when told to. */
final class Holding extends Receiver {
  private final List<RawFragmentBatch> held = new ArrayList<>();
  private boolean released;

  Holding(FragmentHandle handle, BufferAllocator allocator) {
    super(handle, allocator);
  }

  @Override
  synchronized void take(RawFragmentBatch batch) {
    DataPlaneHarness.say("holds " + batch.getHeader().getReceivingMajorFragmentId());
    held.add(batch);
    if (released) {
      answer();
    }
  }

  synchronized void release() {
    released = true;
    answer();
  }

  private void answer() {
    for (RawFragmentBatch batch : held) {
      batch.sendOk();
      batch.release();
    }
    held.clear();
  }
}
