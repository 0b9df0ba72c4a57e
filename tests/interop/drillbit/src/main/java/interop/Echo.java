package interop;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.drill.exec.expr.TypeHelper;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.proto.BitData.FragmentRecordBatch;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.record.FragmentWritableBatch;
import org.apache.drill.exec.record.RawFragmentBatch;
import org.apache.drill.exec.record.RecordBatchLoader;
import org.apache.drill.exec.record.VectorWrapper;
import org.apache.drill.exec.record.WritableBatch;
import org.apache.drill.exec.rpc.data.DataTunnel;
import org.apache.drill.exec.vector.AllocationHelper;
import org.apache.drill.exec.vector.ValueVector;

/**
 * Loads every batch into Drill's vectors, copies them value by value into new ones, and sends those back. A batch is
 * answered when that is done, as by an operator.
 */
final class Echo extends Receiver implements Runnable {
  private final BlockingQueue<RawFragmentBatch> batches = new LinkedBlockingQueue<>();
  private final DataTunnel tunnel;
  private final Answers answers = new Answers();

  Echo(FragmentHandle handle, BufferAllocator allocator, DataTunnel tunnel) {
    super(handle, allocator);
    this.tunnel = tunnel;
  }

  @Override
  void take(RawFragmentBatch batch) {
    batches.add(batch);
  }

  @Override
  public void run() {
    int major = getHandle().getMajorFragmentId();
    try {
      boolean last = false;
      while (!last) {
        RawFragmentBatch batch = batches.take();
        last = batch.getHeader().getIsLastBatch();
        send(batch);
        batch.sendOk();
        batch.release();
      }
      DataPlaneHarness.say("echoed " + major + " " + answers.all());
    } catch (Throwable problem) {
      problem.printStackTrace();
      DataPlaneHarness.say("echo " + major + " failed: " + problem);
    }
  }

  private void send(RawFragmentBatch batch) throws Exception {
    FragmentRecordBatch header = batch.getHeader();
    int major = header.getReceivingMajorFragmentId();
    if (header.getDef().getFieldCount() == 0) {
      answers.sent();
      tunnel.sendRecordBatch(
          answers, FragmentWritableBatch.getEmptyLast(DataPlaneHarness.QUERY, major, 0, major, 0));
      return;
    }
    RecordBatchLoader loader = new RecordBatchLoader(allocator);
    loader.load(header.getDef(), batch.getBody());
    int rows = loader.getRecordCount();
    List<ValueVector> copies = new ArrayList<>();
    for (VectorWrapper<?> column : loader) {
      copies.add(copy(column.getValueVector(), rows));
    }
    loader.clear();
    WritableBatch writable = WritableBatch.getBatchNoHV(rows, copies, false);
    answers.sent();
    tunnel.sendRecordBatch(
        answers,
        new FragmentWritableBatch(
            header.getIsLastBatch(), DataPlaneHarness.QUERY, major, 0, major, 0, writable));
    // The frame holds on to the buffers.
  }

  private ValueVector copy(ValueVector from, int rows) {
    ValueVector to = TypeHelper.getNewVector(from.getField(), allocator);
    AllocationHelper.allocate(to, rows, 64);
    for (int row = 0; row < rows; row++) {
      to.copyEntry(row, from, row);
    }
    to.getMutator().setValueCount(rows);
    return to;
  }
}
