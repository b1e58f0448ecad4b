-- Wireshark dissector for the MT-5 protocol of EPsolar Tracer solar charge controllers, over TCP.
-- README.md in this folder says how to install it. Lua 5.2 to 5.4 (Wireshark 3.6 or later).
--
-- Frame: [start-up AA 55 x3] | sync EB 90 x3 | controller ID | command | length | data | CRC | 7F
-- The CRC covers controller ID to the last data byte and is big-endian. Integers in the data are little-endian.

local mt5 = Proto("mt5", "EPsolar MT-5")

local SYNC = "\xEB\x90\xEB\x90\xEB\x90"
local START_UP = "\xAA\x55\xAA\x55\xAA\x55"
local HEADER_SIZE = 9
local OVERHEAD = 12
local MAX_DATA = 200
local END = 0x7F

local READ, LOAD, SETTINGS = 0xA0, 0xAA, 0xAD
local COMMANDS = { [READ] = "read real-time data", [LOAD] = "switch the load", [SETTINGS] = "write settings" }

-- Seconds: clients wait this long for a reply, a reply can be this late, and a copy of a reply comes within this time.
local TIMEOUT, LATE, COPY = 1.0, 5.0, 0.25

-- Fields ---------------------------------------------------------------------------------------------------------

local OFF_ON = { [0] = "off", [1] = "on" }
local BATTERY_TYPES = { [0] = "gel", [1] = "sealed", [2] = "flooded" }
local LOAD_MODES = { [0] = "dusk to dawn", [16] = "test", [17] = "manual", [18] = "off" }
for hours = 1, 15 do
    LOAD_MODES[hours] = hours .. " h after dusk"
end

local f = mt5.fields
f.frame = ProtoField.bytes("mt5.frame", "Frame")
f.damaged = ProtoField.bytes("mt5.damaged", "Damaged frame")
f.reason = ProtoField.string("mt5.reason", "Reason")
f.outside = ProtoField.bytes("mt5.outside", "Bytes outside of frames")
f.start_up = ProtoField.bytes("mt5.start_up", "Start-up bytes")
f.sync = ProtoField.bytes("mt5.sync", "Sync bytes")
f.id = ProtoField.uint8("mt5.id", "Controller ID", base.HEX)
f.command = ProtoField.uint8("mt5.command", "Command", base.HEX, COMMANDS)
f.length = ProtoField.uint8("mt5.length", "Length of the data", base.DEC)
f.data = ProtoField.bytes("mt5.data", "Data")
f.crc = ProtoField.uint16("mt5.crc", "CRC", base.HEX)
f.crc_computed = ProtoField.uint16("mt5.crc.computed", "Computed CRC", base.HEX)
f.crc_good = ProtoField.bool("mt5.crc.good", "CRC is correct")
f["end"] = ProtoField.uint8("mt5.end", "End byte", base.HEX)
f.is_request = ProtoField.bool("mt5.request", "Request")
f.response_in = ProtoField.framenum("mt5.response_in", "Response in", base.NONE, frametype.RESPONSE)
f.response_to = ProtoField.framenum("mt5.response_to", "Response to", base.NONE, frametype.REQUEST)
f.time = ProtoField.relative_time("mt5.time", "Time since the request")

-- The reply to A0: field, offset, size, unit. Size 2 is in steps of 0.01. A flag has no unit.
local REALTIME = {
    { "battery_voltage", "Battery voltage", 0, 2, "V" },
    { "pv_voltage", "PV voltage", 2, 2, "V" },
    { "reserved_4", "Reserved", 4, "reserved", 2 },
    { "load_current", "Load current", 6, 2, "A" },
    { "over_discharge_voltage", "Over-discharge voltage", 8, 2, "V" },
    { "battery_full_voltage", "Battery-full voltage", 10, 2, "V" },
    { "load_on", "Load on", 12, "flag" },
    { "overload", "Overload", 13, "flag" },
    { "load_short_circuit", "Load short circuit", 14, "flag" },
    { "reserved_15", "Reserved (meaning unknown)", 15, "reserved", 1 },
    { "battery_over_voltage", "Battery over-voltage", 16, "flag" },
    { "over_discharge", "Over-discharge", 17, "flag" },
    { "battery_full", "Battery full", 18, "flag" },
    { "charging", "Charging", 19, "flag" },
    { "battery_temperature", "Battery temperature", 20, "temperature" },
    { "charge_current", "Charge current", 21, 2, "A" },
    { "reserved_23", "Reserved", 23, "reserved", 1 },
}
for _, field in ipairs(REALTIME) do
    local name, label, kind = "mt5." .. field[1], field[2], field[4]
    if kind == 2 then
        f[field[1]] = ProtoField.double(name, label)
    elseif kind == "flag" then
        f[field[1]] = ProtoField.uint8(name, label, base.DEC, { [0] = "no", [1] = "yes" })
    elseif kind == "temperature" then
        f[field[1]] = ProtoField.int16(name, label, base.DEC)
    else
        f[field[1]] = ProtoField.bytes(name, label)
    end
end
f.load_state = ProtoField.uint8("mt5.load_state", "Load", base.DEC, OFF_ON)
f.load_type = ProtoField.uint8("mt5.load_type", "Load type (unused)", base.DEC)
f.charging_mode = ProtoField.uint8("mt5.charging_mode", "Charging mode (unused)", base.DEC)
f.compensation = ProtoField.uint8("mt5.temperature_compensation", "Temperature compensation coefficient", base.DEC)
f.battery_type = ProtoField.uint8("mt5.battery_type", "Battery type", base.DEC, BATTERY_TYPES)
f.capacity = ProtoField.uint16("mt5.battery_capacity", "Battery capacity", base.DEC)
f.load_mode_1 = ProtoField.uint8("mt5.load_mode_1", "Load control mode 1", base.DEC, LOAD_MODES)
f.load_mode_2 = ProtoField.uint8("mt5.load_mode_2", "Load control mode 2", base.DEC, LOAD_MODES)

local e = mt5.experts
e.damaged = ProtoExpert.new("mt5.expert.damaged", "Damaged frame", expert.group.CHECKSUM, expert.severity.ERROR)
e.malformed = ProtoExpert.new("mt5.expert.malformed", "Invalid data in a good frame", expert.group.MALFORMED, expert.severity.WARN)
e.outside = ProtoExpert.new("mt5.expert.outside", "Bytes outside of frames", expert.group.UNDECODED, expert.severity.NOTE)
e.late = ProtoExpert.new("mt5.expert.late", "Late reply", expert.group.SEQUENCE, expert.severity.WARN)
e.ambiguous = ProtoExpert.new("mt5.expert.ambiguous", "The reply may belong to an earlier request", expert.group.SEQUENCE, expert.severity.NOTE)
e.doubled = ProtoExpert.new("mt5.expert.doubled", "Doubled reply", expert.group.SEQUENCE, expert.severity.WARN)
e.unsolicited = ProtoExpert.new("mt5.expert.unsolicited", "Reply without a request", expert.group.SEQUENCE, expert.severity.WARN)
e.unanswered = ProtoExpert.new("mt5.expert.unanswered", "Request without a reply", expert.group.SEQUENCE, expert.severity.NOTE)

-- CRC-16, polynomial 0x1041, initial value 0, most significant bit first -------------------------------------------

-- Lua 5.3 has an operator, which Lua 5.2 cannot even parse. So it is compiled from a string.
local bits = rawget(_G, "bit32") or rawget(_G, "bit")
local bxor = bits and bits.bxor or load("return function(a, b) return a ~ b end")()

local CRC_TABLE = {}
for byte = 0, 255 do
    local crc = byte * 256
    for _ = 1, 8 do
        crc = crc * 2
        if crc >= 0x10000 then
            crc = bxor(crc - 0x10000, 0x1041)
        end
    end
    CRC_TABLE[byte] = crc
end

local function crc16(bytes)
    local crc = 0
    for at = 1, #bytes do
        crc = bxor(crc % 256 * 256, CRC_TABLE[bxor(math.floor(crc / 256), bytes:byte(at))])
    end
    return crc
end

-- Bytes to frames ---------------------------------------------------------------------------------------------------

-- Positions count from 0, as in a Tvb.
local function find_sync(bytes, from)
    local found = bytes:find(SYNC, from + 1, true)
    return found and found - 1
end

-- Return how many bytes at the end of *bytes* are the beginning of *pattern*, at most *most*.
local function cut_at_end(bytes, pattern, most)
    for size = math.min(#pattern - 1, most, #bytes), 1, -1 do
        if bytes:sub(-size) == pattern:sub(1, size) then
            return size
        end
    end
    return 0
end

-- Return the first position in [from, to) where a frame could begin, or *to*, which may cut off its sync bytes.
local function next_sync(bytes, from, to)
    local part = bytes:sub(from + 1, to)
    local found = find_sync(part, 0)
    return found and from + found or to - cut_at_end(part, SYNC, #part)
end

-- Return the events of *bytes*, and the position from which more bytes are needed (the size if none are). An event is
-- a kind ("frame", "damaged", "outside"), its first position, the position after its end, and a reason.
local function scan(bytes)
    local events, size, done, at = {}, #bytes, 0, 0
    local function add(kind, from, to, reason)
        if to > from then
            table.insert(events, { kind = kind, from = from, to = to, reason = reason })
        end
    end
    while at < size do
        local begun = find_sync(bytes, at)
        if not begun or begun > size - HEADER_SIZE then
            at = next_sync(bytes, math.max(at, size - HEADER_SIZE + 1), size)
            break
        end
        at = begun
        local length = bytes:byte(at + HEADER_SIZE)
        local stop = at + OVERHEAD + length
        local reason
        if length > MAX_DATA then
            reason, stop = "length over 200", at + HEADER_SIZE
        elseif stop > size then
            break
        elseif bytes:byte(stop) ~= END then
            reason = "wrong end byte"
        elseif crc16(bytes:sub(at + #SYNC + 1, stop - 1)) ~= 0 then
            reason = "wrong CRC"
        end
        if not reason then
            add("outside", done, at)
            add("frame", at, stop)
            done, at = stop, stop
        else
            -- The length may be damaged too: continue at the next position where a frame could begin.
            at = next_sync(bytes, begun + 1, stop)
            if at - begun >= #SYNC then
                add("outside", done, begun)
                add("damaged", begun, at, reason)
                done = at
            end
        end
    end
    -- Start-up bytes belong to the frame that follows, so they are kept for it.
    local rest = bytes:sub(done + 1, at)
    if rest:sub(-#START_UP) == START_UP then
        at = at - #START_UP
    elseif at == size then
        at = at - cut_at_end(rest, START_UP, #rest)
    end
    add("outside", done, at)
    return events, at
end

-- Requests and replies ----------------------------------------------------------------------------------------------

-- Filled in the first pass over the packets, read in all later ones.
local streams, results = {}, {}

function mt5.init()
    streams, results = {}, {}
end

-- The fields of TCP are not there in the first pass, so a connection is known by its addresses and ports.
local function sender(pinfo)
    return tostring(pinfo.src) .. " " .. pinfo.src_port
end

local function receiver(pinfo)
    return tostring(pinfo.dst) .. " " .. pinfo.dst_port
end

local function stream_of(pinfo)
    local from, to = sender(pinfo), receiver(pinfo)
    local name = from < to and from .. " " .. to or to .. " " .. from
    streams[name] = streams[name] or { requests = {}, last = {}, pending = {} }
    return streams[name]
end

-- Return whether a frame is a request: true, false, or nil if its content does not tell.
local function request_by_content(command, length)
    if command == READ then
        return length <= 1
    elseif command == SETTINGS then
        return length > 0
    end
    return nil
end

local function is_request(stream, pinfo, command, length)
    local told = request_by_content(command, length)
    if told ~= nil then
        stream.asker = stream.asker or (told and sender(pinfo) or receiver(pinfo))
        return told
    end
    if stream.asker then
        return stream.asker == sender(pinfo)
    end
    return pinfo.src_port > pinfo.dst_port -- the client of a connection mostly has the higher port
end

local function link(reply, request)
    reply.request, request.reply = request, reply
end

-- Link a reply to its request. The protocol has no number for that, and only one request is in flight at a time: a reply
-- answers the newest open request. If an older one is open too, the reply may be a late one to that. It was, if one
-- more reply comes.
local function pair(stream, reply)
    local open, skipped = nil, nil
    for _, request in ipairs(stream.requests) do
        local is_open = request.command == reply.command and not request.reply and not request.passed_over
        if is_open and reply.time - request.time < LATE then
            skipped, open = open, request
        end
    end
    local last = stream.last[reply.command]
    if open then
        link(reply, open)
        reply.skipped = skipped
        for _, request in ipairs(stream.requests) do
            request.passed_over = request.passed_over or request.command == reply.command
        end
    elseif last and last.skipped and not last.skipped.reply and reply.time - last.time < LATE then
        local newest = last.request
        link(last, last.skipped)
        last.skipped = nil
        link(reply, newest)
    elseif last and last.bytes == reply.bytes and reply.time - last.time < COPY then
        reply.doubled = true
        return
    else
        reply.unsolicited = true
        return
    end
    stream.last[reply.command] = reply
end

-- Enter a good frame, in the first pass over the packets. Return what is known about it.
local function enter(pinfo, bytes)
    local stream, time = stream_of(pinfo), pinfo.rel_ts
    local entry = { number = pinfo.number, time = time, command = bytes:byte(8), bytes = bytes }
    entry.is_request = is_request(stream, pinfo, entry.command, bytes:byte(9))
    if entry.is_request then
        table.insert(stream.requests, entry)
        while time - stream.requests[1].time >= LATE do
            table.remove(stream.requests, 1)
        end
    else
        pair(stream, entry)
    end
    return entry
end

-- The tree -----------------------------------------------------------------------------------------------------------

local function add_realtime(tree, range)
    for _, field in ipairs(REALTIME) do
        local name, at, kind = field[1], field[3], field[4]
        if kind == 2 then
            tree:add(f[name], range(at, 2), range(at, 2):le_uint() / 100):append_text(" " .. field[5])
        elseif kind == "flag" then
            local item = tree:add(f[name], range(at, 1))
            if range(at, 1):uint() > 1 then
                item:add_proto_expert_info(e.malformed, "A flag is neither 0 nor 1")
            end
        elseif kind == "temperature" then
            tree:add(f[name], range(at, 1), range(at, 1):uint() - 30):append_text(" °C")
        else
            tree:add(f[name], range(at, field[5]))
        end
    end
    return string.format("battery %.2f V, PV %.2f V, charge %.2f A, load %s", range(0, 2):le_uint() / 100,
        range(2, 2):le_uint() / 100, range(21, 2):le_uint() / 100, OFF_ON[range(12, 1):uint()] or "?")
end

local function add_settings(tree, range)
    tree:add(f.load_type, range(0, 1))
    tree:add(f.charging_mode, range(1, 1))
    tree:add(f.compensation, range(2, 1))
    tree:add(f.battery_type, range(3, 1))
    tree:add(f.capacity, range(4, 1), range(4, 1):uint() * 10):append_text(" Ah")
    tree:add(f.load_mode_1, range(5, 1))
    tree:add(f.load_mode_2, range(6, 1))
end

-- Add the fields of the data. Return words for the info column.
local function add_data(tree, range, entry)
    local item = tree:add(f.data, range)
    local length = range:len()
    if entry.command == READ and length == 24 then
        return add_realtime(item, range)
    elseif entry.command == LOAD and length >= 1 then
        item:add(f.load_state, range(0, 1))
        return "load " .. (OFF_ON[range(0, 1):uint()] or "?")
    elseif entry.command == SETTINGS and length == 7 then
        add_settings(item, range)
    elseif not (entry.command == READ and length == 1) then
        item:add_proto_expert_info(e.malformed, "Unknown data")
    end
    return ""
end

local function add_links(tree, entry)
    tree:add(f.is_request, entry.is_request):set_generated()
    if entry.is_request then
        if entry.reply then
            tree:add(f.response_in, entry.reply.number):set_generated()
        else
            tree:add_proto_expert_info(e.unanswered)
        end
        return
    end
    if entry.request then
        local delay = entry.time - entry.request.time
        tree:add(f.response_to, entry.request.number):set_generated()
        tree:add(f.time, NSTime.new(math.floor(delay), math.floor(delay % 1 * 1e9 + 0.5))):set_generated()
        if delay > TIMEOUT then
            tree:add_proto_expert_info(e.late, string.format("Late reply: %.3f s after the request", delay))
        end
        if entry.skipped then
            tree:add_proto_expert_info(e.ambiguous, "The reply may belong to the request in " .. entry.skipped.number)
        end
    elseif entry.doubled then
        tree:add_proto_expert_info(e.doubled)
    elseif entry.unsolicited then
        tree:add_proto_expert_info(e.unsolicited)
    end
end

local function add_frame(tree, range, bytes, entry)
    local length = bytes:byte(9)
    local item = tree:add(f.frame, range)
    item:add(f.sync, range(0, 6))
    item:add(f.id, range(6, 1))
    item:add(f.command, range(7, 1))
    item:add(f.length, range(8, 1)):append_text(" bytes")
    local words = length > 0 and add_data(item, range(9, length), entry) or ""
    item:add(f.crc, range(9 + length, 2)):append_text(" (correct)")
    item:add(f.crc_good, range(9 + length, 2), true):set_generated()
    item:add(f["end"], range(11 + length, 1))
    add_links(item, entry)
    local kind = entry.is_request and "Request" or "Reply"
    item:set_text(string.format("%s %02X, %s", kind, entry.command, COMMANDS[entry.command] or "unknown command"))
    return string.format("%s %02X%s", kind, entry.command, words ~= "" and ": " .. words or "")
end

local function add_damaged(tree, range, bytes, reason)
    local item = tree:add(f.damaged, range)
    item:add(f.reason, reason):set_generated()
    if reason == "wrong CRC" then
        -- It ends where its length says, unless another frame begins within it.
        local length = bytes:byte(9)
        if #bytes == OVERHEAD + length then
            item:add(f.crc, range(9 + length, 2))
            item:add(f.crc_computed, range(9 + length, 2), crc16(bytes:sub(7, 9 + length))):set_generated()
        end
        item:add(f.crc_good, range, false):set_generated()
    end
    item:add_proto_expert_info(e.damaged, "Damaged frame: " .. reason)
    return "Damaged frame (" .. reason .. ")"
end

local function add_outside(tree, range, bytes)
    local item = tree:add(f.outside, range)
    local stray = #bytes
    if bytes:sub(-#START_UP) == START_UP then
        stray = stray - #START_UP
        item:add(f.start_up, range(stray, #START_UP))
    end
    if stray > 0 then
        item:add_proto_expert_info(e.outside, stray .. " bytes outside of frames")
    end
end

local function ask_for_more(pinfo, from, size)
    stream_of(pinfo).pending[sender(pinfo)] = size - from
    if from < size then
        pinfo.desegment_offset = from
        pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
    end
end

-- Scan the bytes of a packet, and the bytes of earlier packets that were kept for it. Return the events.
local function first_pass(pinfo, bytes)
    local events, from = scan(bytes)
    if pinfo.can_desegment > 0 then
        -- If an incomplete frame begins in an earlier packet, Wireshark will dissect all of these bytes again, with the
        -- next segment. The complete frames must not be counted twice, so nothing is shown until then.
        if from < #bytes and from <= (stream_of(pinfo).pending[sender(pinfo)] or 0) then
            ask_for_more(pinfo, 0, #bytes)
            return {}
        end
        ask_for_more(pinfo, from, #bytes)
    end
    for _, event in ipairs(events) do
        if event.kind == "frame" then
            event.entry = enter(pinfo, bytes:sub(event.from + 1, event.to))
        end
    end
    -- In later passes Wireshark passes all of these bytes again, or leaves out those that were kept for the next packet.
    results[pinfo.number .. " " .. from] = events
    results[pinfo.number .. " " .. #bytes] = events
    return events
end

local function dissect(tvb, pinfo, root)
    local bytes = tvb:raw()
    local events
    if pinfo.visited then
        events = results[pinfo.number .. " " .. #bytes] or {}
    else
        events = first_pass(pinfo, bytes)
    end
    if #events > 0 then
        pinfo.cols.protocol = "MT-5"
        local tree, words = root:add(mt5, tvb(0, events[#events].to)), {}
        for _, event in ipairs(events) do
            local range, part = tvb(event.from, event.to - event.from), bytes:sub(event.from + 1, event.to)
            if event.kind == "frame" then
                table.insert(words, add_frame(tree, range, part, event.entry))
            elseif event.kind == "damaged" then
                table.insert(words, add_damaged(tree, range, part, event.reason))
            else
                add_outside(tree, range, part)
            end
        end
        pinfo.cols.info = #words > 0 and table.concat(words, "; ") or "Bytes outside of frames"
    end
    return #bytes
end

function mt5.dissector(tvb, pinfo, root)
    return dissect(tvb, pinfo, root)
end

-- Any TCP port: the six sync bytes are certain enough. The first segment may end within them.
local function heuristic(tvb, pinfo, root)
    local bytes = tvb:raw()
    if find_sync(bytes, 0) then
        dissect(tvb, pinfo, root) -- not mt5.dissector: Wireshark lets that ask for no more segments here
        pinfo.conversation = mt5
        return true
    end
    local whole = START_UP .. SYNC
    local is_beginning = bytes == whole:sub(1, #bytes) or bytes == SYNC:sub(1, #bytes)
    if (is_beginning or cut_at_end(bytes, SYNC, #bytes) > 1) and pinfo.can_desegment > 0 then
        -- The next segment decides. Until then the connection is nobody's.
        ask_for_more(pinfo, 0, #bytes)
        return true
    end
    return false
end

mt5:register_heuristic("tcp", heuristic)
DissectorTable.get("tcp.port"):add_for_decode_as(mt5)
