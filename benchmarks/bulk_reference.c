/* What a decoder of captures takes in C: the measure that benchmarks/bulk.py holds the bulk decoder against.
 *
 * It finds the sync bytes, reads the length, checks the end byte and then the CRC, by a table of bytes, and fills one
 * record for each reading. Damage it only counts: what is no frame is passed over a sync at a time.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* As the fields of Capture.readings lie in memory. */
struct reading {
    int64_t offset;
    double battery_voltage, pv_voltage, load_current, over_discharge_voltage, battery_full_voltage, charge_current;
    int16_t battery_temperature;
    uint8_t load_on, overload, load_short_circuit, battery_over_voltage, over_discharge, battery_full, charging;
    uint8_t sender;
    uint8_t reserved[4];
};

static const uint8_t sync_bytes[6] = {0xEB, 0x90, 0xEB, 0x90, 0xEB, 0x90};
static uint16_t table[256];

static void fill_table(void)
{
    for (int byte = 0; byte < 256; byte++) {
        uint16_t crc = (uint16_t)(byte << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1041 : crc << 1);
        table[byte] = crc;
    }
}

static uint16_t crc16(const uint8_t *data, size_t size)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < size; i++)
        crc = (uint16_t)(crc << 8 ^ table[crc >> 8 ^ data[i]]);
    return crc;
}

static double hundredths(const uint8_t *data)
{
    return (data[0] | data[1] << 8) / 100.0;
}

static void fill(struct reading *out, const uint8_t *data, int64_t offset)
{
    out->offset = offset;
    out->sender = 0;
    out->battery_voltage = hundredths(data);
    out->pv_voltage = hundredths(data + 2);
    out->load_current = hundredths(data + 6);
    out->over_discharge_voltage = hundredths(data + 8);
    out->battery_full_voltage = hundredths(data + 10);
    out->load_on = data[12];
    out->overload = data[13];
    out->load_short_circuit = data[14];
    out->battery_over_voltage = data[16];
    out->over_discharge = data[17];
    out->battery_full = data[18];
    out->charging = data[19];
    out->battery_temperature = (int16_t)(data[20] - 30);
    out->charge_current = hundredths(data + 21);
    out->reserved[0] = data[4];
    out->reserved[1] = data[5];
    out->reserved[2] = data[15];
    out->reserved[3] = data[23];
}

/* Decode size bytes; out has room for size / 36 readings. Returns how many there were. */
size_t decode(const uint8_t *data, size_t size, struct reading *out)
{
    size_t found = 0;
    size_t at = 0;
    if (!table[1])
        fill_table();
    while (at + 12 <= size) {
        if (data[at] != 0xEB || memcmp(data + at, sync_bytes, 6) != 0) {
            at++;
            continue;
        }
        size_t length = data[at + 8];
        size_t stop = at + 12 + length;
        if (length > 200 || stop > size || data[stop - 1] != 0x7F ||
            crc16(data + at + 6, length + 3) != (data[stop - 3] << 8 | data[stop - 2])) {
            at++;
            continue;
        }
        const uint8_t *body = data + at + 9;
        if (data[at + 7] == 0xA0 && length == 24 &&
            (body[12] | body[13] | body[14] | body[16] | body[17] | body[18] | body[19]) <= 1)
            fill(out + found++, body, (int64_t)at);
        at = stop;
    }
    return found;
}
