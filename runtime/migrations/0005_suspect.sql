ALTER TABLE engine
    ADD COLUMN suspect uuid,  -- the invocation that it tries: it was being driven in engines that died
    ADD COLUMN culprit uuid;  -- the invocation that blocked its loop, and is why it ends
