/* The limit: the decoder in C. Chunks of bytes in, frames out; a table of 256 entries for the CRC.
 *
 * It does the work that FrameDecoder does, and finds the same frames in the same bytes: a header is believed only when
 * its length, its end byte and its CRC are right, else the search goes on one byte behind its start.
 */
#include <stdint.h>
#include <string.h>

enum { OVERHEAD = 12, HEADER = 9, MAX_DATA = 200, CHUNK = 65536 };

struct frame {
    uint8_t id, command, length;
    uint8_t data[MAX_DATA];
};

struct decoder {
    size_t pending;
    uint16_t table[256];
    uint8_t held[CHUNK + OVERHEAD + MAX_DATA];
    struct frame frames[CHUNK / OVERHEAD + 1];
};

static const uint8_t SYNC[6] = {0xEB, 0x90, 0xEB, 0x90, 0xEB, 0x90};

size_t decoder_size(void) { return sizeof(struct decoder); }

void decoder_init(struct decoder *d)
{
    d->pending = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint16_t crc = (uint16_t)(byte << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1041 : crc << 1);
        d->table[byte] = crc;
    }
}

/* Returns how many frames of d->frames the chunk completed. */
size_t decoder_feed(struct decoder *d, const uint8_t *chunk, size_t size)
{
    uint8_t *held = d->held;
    memcpy(held + d->pending, chunk, size);
    size += d->pending;
    size_t at = 0, found = 0;
    while (at < size) {
        const uint8_t *start = memchr(held + at, SYNC[0], size - at);
        if (start == NULL) {
            at = size;
            break;
        }
        at = (size_t)(start - held);
        size_t left = size - at;
        if (memcmp(start, SYNC, left < sizeof SYNC ? left : sizeof SYNC) != 0) {
            at++;
            continue;
        }
        if (left < HEADER)
            break;
        size_t length = start[8];
        if (length > MAX_DATA) {
            at++;
            continue;
        }
        if (left < OVERHEAD + length)
            break;
        uint16_t crc = 0;
        if (start[11 + length] == 0x7F) {
            const uint8_t *end = start + HEADER + length;
            for (const uint8_t *byte = start + 6; byte < end; byte++)
                crc = (uint16_t)(crc << 8 ^ d->table[crc >> 8 ^ *byte]);
            if (end[0] == crc >> 8 && end[1] == (crc & 0xFF)) {
                struct frame *frame = &d->frames[found++];
                frame->id = start[6];
                frame->command = start[7];
                frame->length = (uint8_t)length;
                memcpy(frame->data, start + HEADER, length);
                at += OVERHEAD + length;
                continue;
            }
        }
        at++;
    }
    d->pending = size - at;
    memmove(held, held + at, d->pending);
    return found;
}
