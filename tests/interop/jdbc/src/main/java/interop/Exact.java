package interop;

import java.math.BigDecimal;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import oadd.org.apache.drill.exec.util.Text;
import oadd.org.joda.time.Period;

/**
 * Values as {@code kind:text}, arrays as {@code [..]}, maps as {@code {key=value}}: the same text for the same value,
 * whatever Java class the driver has for it at its place, and every bit of it. The crate {@code random-batches} writes
 * the same of an Arrow value.
 */
final class Exact {
  private static final long MILLIS_PER_DAY = 86_400_000;

  private Exact() {}

  static List<Object> rows(ResultSet results) throws SQLException {
    int width = results.getMetaData().getColumnCount();
    List<Object> rows = new ArrayList<>();
    while (results.next()) {
      List<Object> row = new ArrayList<>();
      for (int i = 1; i <= width; i++) {
        row.add(value(results.getObject(i)));
      }
      rows.add(row);
    }
    return rows;
  }

  private static String value(Object value) {
    if (value instanceof List<?> list) {
      return "[" + String.join(",", list.stream().map(Exact::value).toList()) + "]";
    }
    if (value instanceof Map<?, ?> map) {
      return "{" + String.join(",", map.entrySet().stream().map(Exact::entry).toList()) + "}";
    }
    return value == null ? "null" : scalar(value);
  }

  private static String entry(Map.Entry<?, ?> entry) {
    return value(entry.getKey()) + "=" + value(entry.getValue());
  }

  private static String scalar(Object value) {
    if (value instanceof Boolean) {
      return "bool:" + value;
    } else if (value instanceof Byte) {
      return "byte:" + value;
    } else if (value instanceof Short) {
      return "short:" + value;
    } else if (value instanceof Integer) {
      return "int:" + value;
    } else if (value instanceof Long) {
      return "long:" + value;
    } else if (value instanceof Float number) {
      return String.format("float:%08x", Float.floatToIntBits(number));
    } else if (value instanceof Double number) {
      return String.format("double:%016x", Double.doubleToLongBits(number));
    } else if (value instanceof BigDecimal number) {
      return "decimal:" + number.unscaledValue() + "e-" + number.scale();
    } else if (value instanceof String || value instanceof Text) {
      return "text:\"" + value.toString().replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    } else if (value instanceof byte[] bytes) {
      return "bytes:" + HexFormat.of().formatHex(bytes);
    }
    return time(value);
  }

  /** The JVM's zone is UTC. */
  private static String time(Object value) {
    if (value instanceof java.sql.Date date) {
      return "date:" + Math.floorDiv(date.getTime(), MILLIS_PER_DAY);
    } else if (value instanceof LocalDate date) {
      return "date:" + date.toEpochDay();
    } else if (value instanceof java.sql.Time time) {
      return "time:" + Math.floorMod(time.getTime(), MILLIS_PER_DAY);
    } else if (value instanceof LocalTime time) {
      return "time:" + time.toNanoOfDay() / 1_000_000;
    } else if (value instanceof java.sql.Timestamp timestamp) {
      return "timestamp:" + timestamp.getTime();
    } else if (value instanceof LocalDateTime timestamp) {
      return "timestamp:" + timestamp.toInstant(ZoneOffset.UTC).toEpochMilli();
    } else if (value instanceof Period period) {
      return interval(period);
    }
    return value.getClass().getName() + ":" + value;
  }

  private static String interval(Period period) {
    long months = 12L * period.getYears() + period.getMonths();
    long days = 7L * period.getWeeks() + period.getDays();
    long seconds = (60L * period.getHours() + period.getMinutes()) * 60 + period.getSeconds();
    return "interval:" + months + "m" + days + "d" + (1000 * seconds + period.getMillis()) + "ms";
  }
}
