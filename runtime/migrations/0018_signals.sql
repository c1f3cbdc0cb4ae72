-- Slots of named signals: drawn while the target's row is locked, downwards, so that they are in the order of sending.
-- It may come round: nobody has a thousand million of them unread.
CREATE SEQUENCE signal_slot AS integer INCREMENT BY -1 START WITH -1073741824 MAXVALUE -1073741824 CYCLE;
